"""Opens a session and runs it, in a process that may hang or crash; run by its path.

Reads the work from stdin, as JSON. Each line of stdout says, as JSON, what has been done; the last
one of a failed run says what failed, and why.
"""

import json
import os
import runpy
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# By its path, since the package would be imported with it, and torch.
_RUNNING = runpy.run_path(str(Path(__file__).parents[2] / "onnx" / "_running.py"))
run, storable = _RUNNING["run"], _RUNNING["storable"]
_NUMBERS = {  # of the element types that pass as bits
    "tensor(bfloat16)": 16,
    "tensor(float8e4m3fn)": 17,
    "tensor(float8e4m3fnuz)": 18,
    "tensor(float8e5m2)": 19,
    "tensor(float8e5m2fnuz)": 20,
}


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _options(work: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = work["threads"]
    options.graph_optimization_level = _RUNNING["LEVELS"][work["optimization"]]
    for library in work["libraries"]:
        options.register_custom_ops_library(library)
    return options


def _main() -> None:
    work = json.load(sys.stdin)
    options, providers = _options(work), work["providers"]
    try:
        session: Any = onnxruntime.InferenceSession(work["model"], options, providers=providers)
    except Exception as error:
        _say(error=str(error))
        return
    types = [[each.name, each.type, list(each.shape)] for each in session.get_outputs()]
    _say(loaded=True, types=types)
    if not work["inputs"]:
        return
    # What goes wrong here is no failure of onnxruntime, and ends the process.
    inputs = session.get_inputs()
    with np.load(work["inputs"]) as file:
        feed = [file[each.name] for each in inputs]
    numbers = [_NUMBERS.get(each.type, 0) for each in inputs]
    seconds = []
    try:
        results = run(session, feed, numbers)
        for _ in range(work["runs"]):
            start = time.perf_counter()
            run(session, feed, numbers)
            seconds.append(time.perf_counter() - start)
    except Exception as error:
        _say(error=str(error))
        return
    for i, result in enumerate(results if work["save"] else ()):
        if isinstance(result, np.ndarray):
            np.save(os.path.join(work["save"], f"{i}.npy"), storable(result))
    _say(ran=True, seconds=statistics.median(seconds) if seconds else 0.0)


if __name__ == "__main__":
    _main()
