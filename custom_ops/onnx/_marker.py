"""The marker: an op that names a value, what the exporters of torch write for it, and its body.

Its node has a domain of its own, for which no library has a kernel, and the body that it carries is
an Identity. So it runs wherever functions do, and no exporter and no optimiser fuses across it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnxscript.values import Op as OnnxScriptOp
from onnxscript.values import Opset

DOMAIN = "custom_ops.debug"
OP = "Marker"
ATTRIBUTE = "name"
_VERSION = 1
_FUNCTIONS_IR_VERSION = 8  # the first that has functions


# A copy: an op must not return what it is given. Only exported programs run it.
@torch.library.custom_op("custom_ops::mark", mutates_args=())
def mark(x: torch.Tensor, name: str) -> torch.Tensor:
    """Returns a copy of a tensor; the exporters write it as a node with that name.

    Args:
        x: Any tensor.
        name: Its name.
    """
    return x.clone()


@mark.register_fake
def _fake(x: torch.Tensor, name: str) -> torch.Tensor:
    return torch.empty_like(x)


@mark.register_vmap
def _vmap(info: Any, dims: tuple[Any, ...], x: torch.Tensor, name: str) -> tuple[Any, Any]:
    return mark(x, name), dims[0]


mark.register_autograd(lambda ctx, gradient: (gradient, None))


@cache
def function(opset: int) -> onnxscript.OnnxFunction[..., Any]:
    """Returns the body of a marker in a model of an opset."""
    op = getattr(onnxscript, f"opset{opset}", None) or Opset("", opset)

    @onnxscript.script(Opset(DOMAIN, _VERSION), default_opset=op)
    def Marker(x, name: str):  # type: ignore[no-untyped-def]
        return op.Identity(x)

    found: onnxscript.OnnxFunction[..., Any] = Marker
    return found


def _symbolic(g: Any, x: Any, name: Any) -> Any:
    """Writes the node under the TorchScript exporter, with its body."""
    text = name.node().s("value") if isinstance(name, torch.Value) else name
    result = g.onnxscript_op(function(g.opset), x, **{f"{ATTRIBUTE}_s": text})
    kind = x.type()
    if kind.kind() == "TensorType" and kind.dim() is not None:
        kind = kind.with_sizes([None] * kind.dim())  # not the traced sizes: they may be dynamic
    result.setType(kind)
    return result


torch.onnx.register_custom_op_symbolic("custom_ops::mark", _symbolic, 1)


def translations() -> dict[Any, Callable[..., Any]]:
    """Returns what the dynamo exporter makes of a mark: the node alone.

    That exporter inlines each body that it is given, and then drops the Identity.
    """
    return {torch.ops.custom_ops.mark.default: _translate}


def _translate(x: Any, name: str) -> Any:
    return OnnxScriptOp(Opset(DOMAIN, _VERSION), OP, _schema())(x, **{ATTRIBUTE: name})


@cache
def _schema() -> onnx.defs.OpSchema:
    schema = onnx.defs.OpSchema
    identity = onnx.defs.get_schema("Identity").inputs[0].types
    types = sorted(kind for kind in identity if kind.startswith("tensor("))
    return schema(
        OP,
        DOMAIN,
        _VERSION,
        inputs=[schema.FormalParameter("x", "T")],
        outputs=[schema.FormalParameter("y", "T")],
        type_constraints=[("T", types, "")],
        attributes=[schema.Attribute(ATTRIBUTE, schema.AttrType.STRING, required=True)],
    )


def attach_body(model: ir.Model) -> None:
    """Adds the body of the markers of a model, where it lacks that; in place."""
    key = (DOMAIN, OP, "")
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    if key in model.functions or not any(
        node.op_identifier() == key
        for graph in graphs
        for node in ir.traversal.RecursiveGraphIterator(graph)
    ):
        return
    opset = model.opset_imports.setdefault("", 18)
    body = ir.serde.deserialize_function(function(opset).to_function_proto())
    model.functions[key] = body
    model.opset_imports[DOMAIN] = _VERSION
    model.ir_version = max(model.ir_version or 0, _FUNCTIONS_IR_VERSION)
