"""Builds the page of an inspection: one HTML file that needs no other."""

import html
import os
import string
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from custom_ops.onnx import _page
from custom_ops.onnx._inspect.wording import counted, shortened, size

if TYPE_CHECKING:
    from custom_ops.onnx._inspect.inspection import Inspection, Module, Value

_FEW = 60  # modules that are all shown open
_LONGEST = 2000  # characters of metadata


def write(inspection: "Inspection", path: str | os.PathLike[str], force: bool) -> None:
    """Writes the page; see `Inspection.write_html`."""
    final, model = Path(path), Path(inspection.model)
    if final.exists() and model.exists() and final.samefile(model):
        raise ValueError(
            f"inspect: the page must not be the model, got {str(final)!r}; name another file"
        )
    _page.write("inspect", final, build(inspection), force)


def build(inspection: "Inspection") -> str:
    """Returns the page."""
    template = resources.files(__package__ or "").joinpath("page.html").read_text("utf-8")
    model = Path(shortened(inspection.model)).name
    facts = {key: text for key, text in inspection.facts.items() if key != "opsets"}
    opsets = [f"{domain or 'ai.onnx'} {version}" for domain, version in inspection.opsets]
    content = string.Template(template).substitute(
        title=_text(model),
        doc=f'<p class="quiet">{_text(inspection.doc)}</p>' if inspection.doc else "",
        facts="".join(
            f"<div><dt>{_text(key)}<dd>{_text(text)}</div>"
            for key, text in {**facts, "opsets": ", ".join(opsets) or "none"}.items()
        ),
        values=_values("input", inspection.inputs) + _values("output", inspection.outputs),
        modules=_modules(inspection.modules, len(inspection.nodes)),
        ops=_ops(inspection),
        functions=_functions(inspection),
        types=_types(inspection.weights.bytes_by_type),
        metadata=_metadata(inspection.metadata),
    )
    return _page.frame(shortened(model), content)


def _text(text: str, longest: int = 300) -> str:
    return html.escape(shortened(text, longest))


def _values(kind: str, values: Sequence["Value"]) -> str:
    rows = []
    for value in values:
        sizes = [f"{'?' if each is None else each}" for each in value.shape or ()]
        shape = "not said" if value.shape is None else " &times; ".join(map(_text, sizes))
        rows.append(
            f"<tr><td>{kind}<td><code>{_text(value.name)}</code><td>"
            f"{_text(value.type) or 'not said'}<td>{shape or 'scalar'}"
        )
    return "".join(rows)


def _modules(modules: Sequence["Module"], nodes: int) -> str:
    if not modules:
        return (
            '<p class="quiet">The nodes do not tell which torch modules they come from. Models of '
            "both exporters of torch do, unless an optimizer has renamed the nodes.</p>"
        )
    rest = nodes - modules[0].nodes
    note = (
        f'<p class="quiet">{counted(rest, "node")} more: bodies of functions, and nodes that an '
        "exporter or optimizer made.</p>"
        if rest > 0
        else ""
    )
    return f'<div class="tree">{"".join(_tree(modules))}</div>{note}'


def _tree(modules: Sequence["Module"]) -> Iterator[str]:
    whole = modules[0]
    for i, module in enumerate(modules):
        deeper = i + 1 < len(modules) and modules[i + 1].depth > module.depth
        row = _module(module, whole)
        if deeper:
            is_open = " open" if len(modules) <= _FEW or module.depth == 0 else ""
            yield f"<details{is_open}><summary>{row}</summary>"
        else:
            yield f'<div class="leaf">{row}</div>'
        following = modules[i + 1].depth if i + 1 < len(modules) else 0
        if not deeper:
            yield "</details>" * (module.depth - following)


def _module(module: "Module", whole: "Module") -> str:
    name = module.path
    if module.parent and name.startswith(f"{module.parent}."):
        name = name[len(module.parent) + 1 :]
    kind = module.type.rpartition(".")[2]
    ops = ", ".join(f"{count} {op}" if count > 1 else op for op, count in module.ops.items())
    calls = f' <span class="tag">called {module.calls} times</span>' if module.calls > 1 else ""
    numbers = f"{counted(module.nodes, 'node')}"
    if module.parameters:
        numbers += f" · {module.parameters:,} weights, {size(module.bytes)}"
    share = 100 * module.parameters / whole.parameters if whole.parameters else 0.0
    return (
        f'<span class="name" title="{_text(module.path)}">'
        f"<b>{_text(name) or 'the whole model'}</b> {_text(kind)}{calls}</span>"
        f'<span class="ops">{_text(ops, 120)}</span>'
        f'<span class="size">{numbers}<i style="width:{share:.1f}%"></i></span>'
    )


def _ops(inspection: "Inspection") -> str:
    most = max((op.count + op.in_functions for op in inspection.ops), default=1)
    rows = []
    for op in inspection.ops:
        width = 100 * (op.count + op.in_functions) / most
        inside = f"{op.in_functions:,}" if op.in_functions else ""
        rows.append(
            f"<tr><td><code>{_text(op.name)}</code><td>{_text(op.domain) or 'ai.onnx'}"
            f'<td class="number">{op.count:,}<td class="number">{inside}'
            f'<td class="bar"><i style="width:{width:.1f}%"></i>'
        )
    return "".join(rows)


def _functions(inspection: "Inspection") -> str:
    rows = "".join(
        f"<tr><td><code>{_text(each.name)}</code><td>{_text(each.domain)}"
        f"<td>{_text(', '.join(each.inputs))}<td>{_text(', '.join(each.outputs))}"
        f'<td class="number">{each.nodes:,}<td class="number">{each.calls:,}'
        for each in inspection.functions
    )
    return _section(
        "Functions",
        '<tr><th>Name<th>Domain<th>Inputs<th>Outputs<th class="number">Nodes'
        '<th class="number">Calls',
        rows,
    )


def _types(bytes_by_type: Mapping[str, int]) -> str:
    rows = "".join(
        f'<tr><td>{_text(kind)}<td class="number">{size(count)}'
        for kind, count in bytes_by_type.items()
    )
    return _section("Weights by type", '<tr><th>Type<th class="number">Size', rows)


def _metadata(metadata: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><td><code>{_text(key)}</code><td class="long">{_text(value, _LONGEST)}'
        for key, value in metadata.items()
    )
    return _section("Metadata", "<tr><th>Key<th>Value", rows)


def _section(title: str, heading: str, rows: str) -> str:
    if not rows:
        return ""
    return (
        f'<section><h2>{title}</h2><div class="scroll"><table>{heading}{rows}</table></div>'
        "</section>"
    )
