"""Sessions of ONNX Runtime with our ops: by the kernel library, by Python, or by the bodies."""

import weakref
from collections.abc import Sequence
from typing import Any

import onnxruntime

from custom_ops import _library
from custom_ops.onnx._model import session_input
from custom_ops.onnx._reading import ModelLike

KERNELS = ("native", "python", "none")

# Options cannot be asked for their libraries, and a session refuses a library that is there twice.
_libraries: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


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
        sess_options: Options of the session; the library is registered with them, once: they may
            serve several sessions, but must not have it registered by other hands.
        providers: As for `onnxruntime.InferenceSession`; the CPU if left out.

    Returns:
        The session. With ``kernels="python"`` its `run` and `run_with_ort_values` raise what an
        op raises, several threads take turns, `run_with_iobinding` and `run_async` are refused,
        and onnxruntime-extensions is registered, all its ops included.

    Raises:
        ValueError: Another kind of kernels, or options that have the library already.

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
        raise ValueError(f"session: kernels must be one of {', '.join(KERNELS)}, got {kernels!r}")
    options = sess_options if sess_options is not None else onnxruntime.SessionOptions()
    chosen = list(providers) if providers is not None else ["CPUExecutionProvider"]
    kind: Any = onnxruntime.InferenceSession
    library = None
    if kernels == "native":
        library = str(_library.library_path())
    elif kernels == "python":
        from custom_ops.onnx import _python_kernels

        model, kind = _python_kernels.rewritten(model), _python_kernels.PythonKernelSession
        library = _python_kernels.library_path()
    registered = _libraries.setdefault(options, set())
    with session_input(model) as given:
        try:
            if library is not None and library not in registered:
                options.register_custom_ops_library(library)
                registered.add(library)
            return kind(given, options, providers=chosen)
        except Exception as error:
            if any(symptom in str(error) for symptom in _REGISTERED_TWICE):
                raise ValueError(
                    f"session: sess_options must not have the library registered already, got "
                    f"{library} twice; pass options without it"
                ) from error
            raise


# What onnxruntime says of a library of ops that it has already.
_REGISTERED_TWICE = ("Domain already set in registry", "Conflicting with a registered kernel")
