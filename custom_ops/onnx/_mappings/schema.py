"""The ops of torch by name: their overloads, and their arguments by their schema."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch

_NAME = re.compile(r"^(\w+)::(\w+)(?:\.(\w+))?$")
# What ONNX has no word for; a mapping does not get these where it does not ask for them.
_WITHOUT_MEANING = ("Layout", "Device", "MemoryFormat", "Generator")
_IGNORED = ("layout", "device", "pin_memory", "memory_format", "generator", "non_blocking")


def split(name: str) -> tuple[str, str]:
    """Returns the op and the overload of a name; "" where none is named.

    Args:
        name: For example "aten::add" or "aten::add.Tensor"; "aten::add.default" is the overload
            without a name.

    Raises:
        ValueError: It is no such name, or torch has no such op of its own.
    """
    found = _NAME.match(name)
    if found is None:
        raise ValueError(
            f"register_mapping: name must be like 'aten::asinh' or 'aten::add.Tensor', got {name!r}"
        )
    namespace, op, overload = found.groups()
    # An op of another library may be registered later.
    if namespace == "aten" and not hasattr(torch.ops.aten, op):
        raise ValueError(_unknown(name, f"aten::{op}"))
    known = [each.name() for each in overloads(f"{namespace}::{op}")]
    if known and overload not in (None, "default") and name not in known:
        raise ValueError(
            f"register_mapping: name must be an overload of {namespace}::{op}, got {name!r}; "
            f"these are {', '.join(known)}"
        )
    return f"{namespace}::{op}", overload or ""


def _unknown(name: str, op: str) -> str:
    names = {each.split(".")[0] for each in torch._C._dispatch_get_all_op_names()}
    near = difflib.get_close_matches(op, names, 3)
    hint = f"did you mean {', '.join(near)}?" if near else "see dir(torch.ops.aten)"
    return f"register_mapping: name must be an op of torch, got {name!r}; {hint}"


def overloads(op: str) -> Iterator[torch._ops.OpOverload]:
    """Yields the overloads of an op that give new tensors; none where it is not there."""
    namespace, _, name = op.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    for overload in packet.overloads() if packet is not None else ():
        found = getattr(packet, overload)
        schema = found._schema
        writes = any(a.is_out or (a.alias_info and a.alias_info.is_write) for a in schema.arguments)
        returns = [str(each.type) for each in schema.returns]
        if not writes and returns and set(returns) == {"Tensor"}:
            yield found


def arguments(schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Returns an argument for each of the schema, defaults filled in.

    Args:
        schema: The schema of the overload.
        args: What is given by position.
        kwargs: What is given by name.
    """
    rest = schema.arguments[len(args) :]
    return [*args, *(kwargs.get(each.name, each.default_value) for each in rest)]


def plain(argument: Any, value: Any, dtype: Callable[[int], ir.DataType]) -> Any:
    """Returns an argument as a mapping gets it: a tensor, number, list, string, dtype or None.

    Args:
        argument: The argument of the schema.
        value: What the exporter has for it; tensors are tensors already.
        dtype: What the exporter means by a number for a dtype.
    """
    kind = str(argument.real_type)
    kind = kind.removeprefix("Optional[").removesuffix("]" * kind.startswith("Optional["))
    if value is None or kind in _WITHOUT_MEANING:
        return None
    if kind == "ScalarType":
        return None if value == -1 else dtype(value)
    if kind in ("bool", "int", "float") and isinstance(value, (bool, int, float)):
        return {"bool": bool, "int": int, "float": float}[kind](value)
    if kind in ("List[int]", "List[float]") and isinstance(value, (bool, int, float)):
        return [value]
    if isinstance(value, (list, tuple)):
        return list(value)
    return value


def is_ignored(argument: Any) -> bool:
    """Returns whether an argument says nothing that a model could hold."""
    return argument.name in _IGNORED
