"""Ops that have no sensible form in ONNX: refused with the reason, instead of in a trace."""

from typing import Any

from custom_ops.onnx._mappings.registry import packed

_SIGNS = (
    "the signs of the vectors are LAPACK's choice, and the method is iterative: no op of ONNX has "
    "it; compute it outside the model, or map it to a custom node by register_mapping"
)
_ITERATIVE = (
    "the method is iterative and no op of ONNX has it; compute it outside the model, or map it to "
    "a custom node by register_mapping"
)


def _refusing(reason: str, *names: str) -> None:
    def refuse(op: Any, *args: Any, **kwargs: Any) -> Any:
        raise op.refusal(reason)

    for name in names:
        packed(f"aten::{name}")(refuse)


_refusing(_SIGNS, "svd", "linalg_svd", "_linalg_svd", "linalg_eigh", "_linalg_eigh", "linalg_eig")
_refusing(
    _ITERATIVE,
    "linalg_svdvals",
    "linalg_eigvals",
    "linalg_eigvalsh",
    "linalg_pinv",
    "pinverse",
    "linalg_matrix_rank",
    "linalg_lstsq",
    "linalg_cond",
)
