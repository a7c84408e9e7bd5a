"""The ops of ONNX at an opset: what they are, and what they take; refusals name what is near."""

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir

from custom_ops.onnx._mappings.constants import fixed_array
from custom_ops.onnx._mappings.refusal import MappingRefused, NeedsNewerOpset
from custom_ops.onnx._mappings.tensor import dtype_name

_VARIADIC = onnx.defs.OpSchema.FormalParameterOption.Variadic
_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional


class Place(NamedTuple):
    """Where an op is called.

    Attributes:
        mapped: The torch op that is mapped.
        opset: The opset of the node.
    """

    mapped: str
    opset: int

    def refusal(self, sentence: str) -> MappingRefused:
        """Returns an error that refuses the call that is mapped."""
        return MappingRefused(f"{self.mapped}: {sentence}")


def schema(mapped: str, op_type: str, opset: int) -> onnx.defs.OpSchema:
    """Returns an op at an opset.

    Raises:
        NeedsNewerOpset: There is one at a later opset.
        MappingRefused: There is none.
    """
    try:
        found = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        found = None
    if found is not None and not found.deprecated:
        return found
    known = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]
    versions = [s.since_version for s in known if s.name == op_type and not s.deprecated]
    if any(version > opset for version in versions):
        raise NeedsNewerOpset(
            f"{mapped}: the mapping needs opset {min(versions)} for {op_type}, got "
            f"{opset}; export with opset_version={min(versions)}"
        )
    near = difflib.get_close_matches(op_type, {s.name for s in known}, 1)
    raise Place(mapped, opset).refusal(
        f"the mapping must use ops of ONNX, got {op_type!r} at opset {opset}; "
        + (f"did you mean {near[0]}?" if near else "see the list of ops of ONNX")
    )


def check_type(
    at: Place,
    schema: onnx.defs.OpSchema,
    formal: onnx.defs.OpSchema.FormalParameter,
    dtype: ir.DataType,
    bound: Mapping[str, ir.DataType],
) -> None:
    """Refuses an input of an element type that an op does not take, or not beside the others.

    Args:
        at: Where it is called.
        schema: The op.
        formal: The input.
        dtype: The element type.
        bound: Those that the inputs before have set, by the names of the op's type variables.
    """
    name = dtype_name(dtype)
    plain = all(kind.startswith("tensor(") for kind in formal.types)
    if plain and f"tensor({name})" not in formal.types:
        kinds = sorted(kind[len("tensor(") : -1] for kind in formal.types)
        raise at.refusal(
            f"op.{schema.name} must have {formal.name} in {', '.join(kinds)}, got {name} at "
            f"opset {at.opset}; put an op.Cast before it"
        )
    other = bound.get(formal.type_str, dtype) if formal.is_homogeneous else dtype
    if other != dtype:
        raise at.refusal(
            f"op.{schema.name} must have inputs of one dtype, got {dtype_name(other)} and "
            f"{name}; put an op.Cast or op.CastLike before it"
        )


def attribute_type(at: Place, schema: onnx.defs.OpSchema, name: str) -> ir.AttributeType:
    """Returns the type of an attribute.

    Raises:
        MappingRefused: The op has no such attribute.
    """
    if name not in schema.attributes:
        near = difflib.get_close_matches(name, schema.attributes, 1)
        raise at.refusal(
            f"op.{schema.name} must have attributes of {', '.join(schema.attributes)} at "
            f"opset {at.opset}, got {name!r}" + (f"; did you mean {near[0]}?" if near else "")
        )
    return ir.AttributeType(int(schema.attributes[name].type))  # type: ignore[call-overload]


def attribute_value(kind: ir.AttributeType, value: Any) -> Any:
    """Returns the value of an attribute in its type."""
    if kind is ir.AttributeType.TENSOR:
        return ir.tensor(fixed_array(value))
    if kind is ir.AttributeType.FLOAT:
        return float(value)
    if kind is ir.AttributeType.INT:
        return int(value)
    return list(value) if kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS) else value


def number_of_outputs(schema: onnx.defs.OpSchema, given: Mapping[str, Any]) -> int:
    """Returns how many outputs a node has where the mapping does not say."""
    if schema.outputs[0].option == _VARIADIC:
        return int(given.get("num_outputs") or 1)
    required = sum(formal.option != _OPTIONAL for formal in schema.outputs)
    return required or len(schema.outputs)
