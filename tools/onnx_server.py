"""Gives onnx one model after the other in one process, which is replaced where it crashes or hangs.

`custom_ops.onnx._guarded` has a process for each, which needs half a second to import onnx.
"""

import pickle
import select
import struct
import subprocess
import sys

from custom_ops.onnx import _guarded

# What the process does; it imports onnx and nothing of ours but the file that it is given.
_LOOP = """
import pickle, runpy, struct, sys
import onnx, onnx.inliner, onnx.shape_inference
actions = runpy.run_path(sys.argv[1])["ACTIONS"]
queries, answers = sys.stdin.buffer, sys.stdout.buffer
while size := queries.read(8):
    action, model = pickle.loads(queries.read(struct.unpack("q", size)[0]))
    try:
        answer = True, actions[action](onnx.load_from_string(model))
    except Exception as error:
        answer = False, str(error)
    content = pickle.dumps(answer)
    answers.write(struct.pack("q", len(content)) + content)
    answers.flush()
"""


class OnnxServer:
    """Stands in for `_guarded._in_child`.

    Args:
        seconds: Limit of one answer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, action: str, model: bytes, seconds: float) -> bytes:
        """Returns what onnx makes of a model."""
        if self.process is None:
            command = [sys.executable, "-c", _LOOP, str(_guarded._CHILD)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            query = pickle.dumps((action, model))
            self.process.stdin.write(struct.pack("q", len(query)) + query)
            self.process.stdin.flush()
            limit = min(seconds, self.seconds)
            if not select.select([self.process.stdout], [], [], limit)[0]:
                self.stop()
                raise _guarded.Refused(f"onnx must be done within {limit:g} s, got no end")
            size = self.process.stdout.read(8)
            answer = self.process.stdout.read(struct.unpack("q", size)[0]) if size else b""
        except BrokenPipeError:
            answer = b""
        if not answer:
            code = self.process.wait()
            self.stop()
            raise _guarded.Refused(f"onnx ended the process with {code}")
        worked, content = pickle.loads(answer)
        if not worked:
            raise _guarded.Refused(content)
        return bytes(content)

    def stop(self) -> None:
        """Ends the process; the next call starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
