"""The mappings there are: those of users, of installed packages, and the pack."""

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import onnxscript

from custom_ops.onnx._mappings import schema

EXPORTERS = ("dynamo", "torchscript")
_GROUP = "custom_ops.mappings"


@dataclass(frozen=True, eq=False)
class Mapping:
    """What becomes of an op of torch under an exporter.

    Attributes:
        op: Its name, for example "aten::asinh".
        overload: The overload; "" for all.
        function: What writes the nodes.
        since_opset: The oldest opset that it can be written in.
        exporters: Those that it is for.
        origin: Who gave it: "user", the name of a package, or "pack".
        wide: Whether 16-bit numbers are made float32 for it, and its float32 results 16 bits.
    """

    op: str
    overload: str
    function: Callable[..., Any]
    since_opset: int
    exporters: tuple[str, ...]
    origin: str
    wide: bool = False

    @property
    def name(self) -> str:
        """The name that it was registered by."""
        return f"{self.op}.{self.overload}" if self.overload else self.op

    @property
    def is_of_pack(self) -> bool:
        """Whether it is ours, and so gives way to those of users."""
        return self.origin == "pack"


_mappings: list[Mapping] = []
_changed: list[Callable[[], None]] = []  # what looks when the list changes
_origin = "user"
_packages_are_loaded = False


class Registration:
    """A mapping that is registered: it can be removed, and ends with a block.

    As a decorator's result it is the function itself.
    """

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping

    def remove(self) -> None:
        """Removes the mapping; what it had overridden counts again."""
        if self.mapping in _mappings:
            _mappings.remove(self.mapping)
            _tell()

    def __enter__(self) -> "Registration":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def register_mapping(
    name: str,
    function: Callable[..., Any] | None = None,
    *,
    since_opset: int | None = None,
    exporter: str = "both",
    override: bool = False,
) -> Any:
    """Says what an op of torch becomes in ONNX, under both exporters of torch.

    `custom_ops.onnx.export` uses it; `install_mappings` and `translation_table` give it to plain
    ``torch.onnx.export``. It goes before the pack and before what the exporter does itself.

    Args:
        name: The op, for example "aten::asinh" for all overloads, "aten::add.Tensor" for one,
            "aten::add.default" for the one without a name.
        function: ``function(op, *arguments)``: `op` has the ONNX ops of the asked opset as methods,
            the arguments are those of torch's schema, as tensors, Python numbers, lists, strings,
            dtypes of onnx-ir and None; it returns a tensor, or a tuple of as many as the schema
            says. It may raise a ValueError of one sentence, which refuses the export, or return
            NotImplemented, which leaves the call to the exporter. An onnxscript function does too.
            Left out: register_mapping is a decorator.
        since_opset: The oldest opset that it can be written in; any if left out.
        exporter: "dynamo", "torchscript" or "both".
        override: Whether another mapping of the same op may be there already.

    Returns:
        The registration, which has `remove` and serves as a context manager; of a decorator the
        function.

    Raises:
        ValueError: An argument, an op that torch does not have, or a second mapping of one op.

    Example:
        >>> import torch, custom_ops
        >>> def asinh(op, x):
        ...     return op.Asinh(x)
        >>> with custom_ops.onnx.register_mapping("aten::asinh", asinh, since_opset=9):
        ...     table = custom_ops.onnx.translation_table()
        >>> torch.ops.aten.asinh.default in table
        True
    """
    if function is None:

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register_mapping(
                name, function, since_opset=since_opset, exporter=exporter, override=override
            )
            return function

        return decorate
    mapping = _mapping(name, function, since_opset, exporter, _origin)
    if not override:
        _check_conflict(mapping)
    _mappings.append(mapping)
    _tell()
    return Registration(mapping)


def remove_mapping(name: str, exporter: str = "both") -> None:
    """Removes the mapping of an op that was registered last; what it overrode counts again.

    Args:
        name: The name that it was registered by.
        exporter: The exporter that it was registered for.

    Raises:
        ValueError: There is none.
    """
    wanted = (*schema.split(name), _exporters(exporter))
    for mapping in reversed(_mappings):
        if (mapping.op, mapping.overload, mapping.exporters) == wanted and not mapping.is_of_pack:
            Registration(mapping).remove()
            return
    raise ValueError(
        f"remove_mapping: name must be registered for exporter={exporter!r}, got {name!r}; "
        f"registered are {', '.join(sorted({m.name for m in _users()})) or 'none'}"
    )


def packed(
    name: str, *, since_opset: int = 1, exporter: str = "both", wide: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a mapping of the pack: as `register_mapping`, but any of a user goes before it.

    Numbers of 16 bits it computes in float32 and rounds once, as torch does; `wide` says
    otherwise where it moves elements only, or sees to that itself.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        mapping = _mapping(name, function, since_opset, exporter, "pack")
        _mappings.append(replace(mapping, wide=wide))
        return function

    return decorate


def names(exporter: str) -> set[str]:
    """Returns the ops, without overloads, that have a mapping under an exporter."""
    load_packages()
    return {mapping.op for mapping in _mappings if exporter in mapping.exporters}


def find(op: str, overload: str, exporter: str) -> Mapping | None:
    """Returns the mapping of an overload: a user's first, that of one overload first, the last.

    Args:
        op: For example "aten::add".
        overload: Its overload; "default" for the one without a name.
        exporter: The exporter that asks.
    """
    fitting = [
        mapping
        for mapping in _mappings
        if mapping.op == op and mapping.overload in ("", overload) and exporter in mapping.exporters
    ]
    return max(
        enumerate(fitting),
        key=lambda pair: (not pair[1].is_of_pack, bool(pair[1].overload), pair[0]),
        default=(0, None),
    )[1]


def when_changed(call: Callable[[], None]) -> None:
    """Has a function called whenever a mapping comes or goes."""
    _changed.append(call)


def _tell() -> None:
    for call in _changed:
        call()


def load_packages() -> None:
    """Registers the mappings of installed packages, once.

    The entry point is a function without arguments that calls `register_mapping`, or a module
    that does so when imported.
    """
    global _packages_are_loaded, _origin
    if _packages_are_loaded:
        return
    _packages_are_loaded = True
    for point in importlib.metadata.entry_points(group=_GROUP):
        package = point.dist.name if point.dist is not None else point.name
        _origin = package
        try:
            found = point.load()
            if callable(found):
                found()
        except Exception as error:
            warnings.warn(
                f"register_mapping: the mappings of {package} must load, got: {error}; update or "
                "remove that package",
                stacklevel=2,
            )
        finally:
            _origin = "user"


def _mapping(
    name: str, function: Callable[..., Any], since: int | None, exporter: str, origin: str
) -> Mapping:
    op, overload = schema.split(name)
    if not callable(function):
        raise ValueError(
            f"register_mapping: function must be one, got {function!r}; write f(op, x, ...)"
        )
    if since is None:
        since = 1
    if isinstance(since, bool) or not isinstance(since, int) or since < 1:
        raise ValueError(f"register_mapping: since_opset must be 1 or more, got {since!r}")
    return Mapping(op, overload, function, since, _exporters(exporter), origin)


def _exporters(exporter: str) -> tuple[str, ...]:
    if exporter not in ("both", *EXPORTERS):
        raise ValueError(
            f"register_mapping: exporter must be one of both, {', '.join(EXPORTERS)}, got "
            f"{exporter!r}"
        )
    return EXPORTERS if exporter == "both" else (exporter,)


def _users() -> Iterator[Mapping]:
    return (mapping for mapping in _mappings if not mapping.is_of_pack)


def _check_conflict(new: Mapping) -> None:
    for old in _users():
        same = (old.op, old.overload) == (new.op, new.overload)
        if same and set(old.exporters) & set(new.exporters):
            raise ValueError(
                f"register_mapping: {new.name} must have one mapping, got a second one beside that "
                f"of {old.origin}; remove that, or pass override=True"
            )
        if same or not all(isinstance(m.function, onnxscript.OnnxFunction) for m in (old, new)):
            continue
        first, second = old.function, new.function
        if first is not second and _key(first) == _key(second):
            raise ValueError(
                f"register_mapping: functions must have names of their own in a model, got another "
                f"{'::'.join(_key(first))} for {new.name} than for {old.name}; rename one"
            )


def _key(function: Any) -> tuple[str, str]:
    return function.function_ir.domain, function.name
