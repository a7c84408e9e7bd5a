"""ONNX Runtime in a process of its own, as it is deployed: nobody else's threads on its cores.

Beside torch, whose threads spin for some milliseconds after each parallel region, a quarter of the
runs of a session find no core for its second thread.
"""

import functools
import multiprocessing
import time
import weakref
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import onnx
import onnxruntime

import custom_ops.onnx
from custom_ops._bench.timing import Clock, Run

Feeds = Mapping[str, np.ndarray[Any, Any]]


def session_run(
    model: onnx.ModelProto, feeds: Feeds, kernels: str, threads: int, apart: bool = True
) -> Run:
    """Opens a session and returns the function that runs it.

    Args:
        model: The model.
        feeds: Its inputs.
        kernels: Which kernels of our ops; see `custom_ops.onnx.session`.
        threads: Of the session. They do not spin between runs, to leave the others alone.
        apart: Whether in the process of its own, which all such sessions share; else in this one.
    """
    if apart:
        return _Remote(_process(), model, feeds, kernels, threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    opened = custom_ops.onnx.session(model, kernels=kernels, sess_options=options)
    return lambda: opened.run(None, dict(feeds))


class _Remote:
    """A session of the other process, as a function that it times itself."""

    def __init__(self, process: "_Process", model: onnx.ModelProto, *how: Any) -> None:
        self._process = process
        self._key = process.ask("open", model.SerializeToString(), *how)
        weakref.finalize(self, process.close, self._key)

    def __call__(self) -> Any:
        return self._process.ask("run", self._key)

    def time(self, count: int, clock: Clock) -> float:
        """Returns the seconds of one run, on the clock of the other process."""
        return float(self._process.ask("time", self._key, count))


class _Process:
    """The other process, from here."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, action: str, *arguments: Any) -> Any:
        """Returns what an action gave there, or raises what it said."""
        self._pipe.send((action, arguments))
        try:
            well, answer = self._pipe.recv()
        except EOFError:
            _process.cache_clear()
            raise RuntimeError(
                f"the process of the sessions must live, got its end at `{action}`"
            ) from None
        if not well:
            raise RuntimeError(answer)
        return answer

    def close(self, key: int) -> None:
        """Closes a session, if the process still lives."""
        if self._process.is_alive():
            self.ask("close", key)


@functools.cache
def _process() -> _Process:
    return _Process()


def _serve(pipe: Connection) -> None:
    """Does what is asked until the pipe closes."""
    runs: dict[int, Run] = {}

    def opened(model: bytes, feeds: Feeds, kernels: str, threads: int) -> int:
        key = max(runs, default=-1) + 1
        runs[key] = session_run(onnx.load_from_string(model), feeds, kernels, threads, False)
        return key

    def timed(key: int, count: int) -> float:
        run, start = runs[key], time.perf_counter()
        for _ in range(count):
            run()
        return (time.perf_counter() - start) / count

    actions: dict[str, Any] = {
        "open": opened,
        "run": lambda key: runs[key](),
        "time": timed,
        "close": lambda key: runs.__delitem__(key),
    }
    while True:
        try:
            action, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, actions[action](*arguments)))
        except Exception as error:
            pipe.send((False, str(error)))
