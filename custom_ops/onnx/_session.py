"""Sessions of ONNX Runtime with our ops: by the kernel library, by Python, or by the bodies."""

from collections.abc import Sequence
from typing import Any

import onnxruntime

from custom_ops import _library
from custom_ops.onnx._model import ModelLike, to_session_input

KERNELS = ("native", "python", "none")


def session(
    model: ModelLike,
    *,
    kernels: str = "native",
    sess_options: onnxruntime.SessionOptions | None = None,
    providers: Sequence[Any] | None = None,
) -> onnxruntime.InferenceSession:
    """Opens a session that runs models with our ops.

    Args:
        model: Path, bytes or ModelProto.
        kernels: Who runs the nodes of our ops: "native" the kernel library, "python" the
            functions of `custom_ops.numpy` through onnxruntime-extensions, "none" the bodies
            that the model carries.
        sess_options: Options of the session; the library is registered with them.
        providers: As for `onnxruntime.InferenceSession`; the CPU if left out.

    Returns:
        The session. With ``kernels="python"`` an exception of an op is raised by its `run`.

    Raises:
        ValueError: Another kind of kernels.

    Example:
        >>> import numpy, onnx, custom_ops
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
        ...     g (float[N] a, float[N] b) => (float[N] y) { y = custom_ops.MulAdd(a, b) }
        ... ''')
        >>> ones = numpy.ones(2, dtype=numpy.float32)
        >>> print(*custom_ops.onnx.session(model).run(None, {"a": ones, "b": ones}))
        [3. 3.]
    """
    if kernels not in KERNELS:
        raise ValueError(
            f"session: kernels must be one of {', '.join(KERNELS)}, got {kernels!r}"
        )
    options = sess_options or onnxruntime.SessionOptions()
    chosen = list(providers) if providers is not None else ["CPUExecutionProvider"]
    if kernels == "python":
        from custom_ops.onnx._python_kernels import PythonKernelSession

        return PythonKernelSession(model, options, chosen)
    if kernels == "native":
        options.register_custom_ops_library(str(_library.library_path()))
    return onnxruntime.InferenceSession(to_session_input(model), options, providers=chosen)
