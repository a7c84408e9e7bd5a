"""What onnx's C++ does to a model, in a process that may hang or crash; run by its path.

Reads a message from stdin and writes what came of it to stdout. It imports onnx alone, so that it
starts fast.
"""

import sys
from collections.abc import Callable

import onnx
import onnx.inliner
import onnx.shape_inference


def _check(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=False)
    return b""


def _infer(model: onnx.ModelProto) -> bytes:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return bytes(inferred.SerializeToString())


def _infer_strictly(model: onnx.ModelProto) -> bytes:
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return b""


def _contradiction(model: onnx.ModelProto) -> bytes:
    said = ""
    try:
        _infer_strictly(model)
    except Exception as error:
        said = str(error)
    message = said.encode()
    return b"%d\n%s%s" % (len(message), message, _infer(model))


def _inline(model: onnx.ModelProto) -> bytes:
    return bytes(onnx.inliner.inline_local_functions(model).SerializeToString())


ACTIONS: dict[str, Callable[[onnx.ModelProto], bytes]] = {
    "check": _check,
    "infer": _infer,
    "infer-strictly": _infer_strictly,
    "contradiction": _contradiction,
    "inline": _inline,
}


def _main() -> int:
    model = onnx.load_from_string(sys.stdin.buffer.read())
    try:
        answer = ACTIONS[sys.argv[1]](model)
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
