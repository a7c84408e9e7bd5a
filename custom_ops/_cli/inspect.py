"""custom-ops inspect: shows what is in a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from custom_ops._cli.options import AsJson, Force, Model
from custom_ops._cli.output import note, progress, write

if TYPE_CHECKING:
    from custom_ops.onnx import Inspection


def inspect(
    model: Model,
    graph: Annotated[
        bool, typer.Option("--graph", help="List the nodes with the module they come from.")
    ] = False,
    depth: Annotated[int, typer.Option(min=0, help="How deep to list modules inside modules.")] = 2,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="A page to write, with the tree of modules and the ops."
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Show what is in a model: versions, inputs, ops, functions, weights, torch modules.

    External data is not loaded. Exit code 2 where the file is no model.
    """
    with progress("Looking"):
        import custom_ops.onnx

        inspection = custom_ops.onnx.inspect(model)
        if page is not None:
            inspection.write_html(page, force)
    result = {"ok": True, **inspection.as_dict(nodes=graph), "html": page}
    write(result, Group(*_shown(inspection, graph, depth)), as_json)
    if page is not None:
        note(f"The page is {page}")


def _shown(inspection: "Inspection", graph: bool, depth: int) -> Iterator[RenderableType]:
    from custom_ops.onnx._inspect.wording import counted, shortened, size

    facts = Table(title=shortened(inspection.model), title_justify="left", show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for key, fact in inspection.facts.items():
        facts.add_row(key, Text(fact))
    for kind, values in (("input", inspection.inputs), ("output", inspection.outputs)):
        for value in values:
            facts.add_row(kind, Text(shortened(str(value))))
    yield facts
    ops = _table("op", "nodes", "in functions")
    for op in inspection.ops:
        ops.add_row(
            shortened(str(op)), f"{op.count:,}", f"{op.in_functions:,}" if op.in_functions else ""
        )
    yield ops
    if inspection.functions:
        functions = _table("function", "nodes", "calls")
        for each in inspection.functions:
            name = "::".join(filter(None, (each.domain, each.name, each.overload)))
            functions.add_row(Text(shortened(name)), f"{each.nodes:,}", f"{each.calls:,}")
        yield functions
    if inspection.modules:
        modules = _table("module", "class", "calls", "nodes", "weights", "size")
        for module in inspection.modules:
            if module.depth <= depth:
                path = Text("  " * module.depth + (shortened(module.path) or "(the whole model)"))
                kind = shortened(module.type.rpartition(".")[2])
                numbers = [f"{n:,}" for n in (module.calls, module.nodes, module.parameters)]
                modules.add_row(path, Text(kind), *numbers, size(module.bytes))
        yield modules
        deeper = sum(module.depth > depth for module in inspection.modules)
        if deeper:
            yield f"{counted(deeper, 'module')} more inside: --depth {depth + 1}"
    if graph:
        nodes = _table("node", "op", "module", "inputs", "outputs")
        for node in inspection.nodes:
            where = f"{node.within}: " if node.within else ""
            texts = (where + node.name, node.op, node.module or "", ", ".join(node.inputs))
            made = (f"{n}: {t}" if t else n for n, t in zip(node.outputs, node.types, strict=True))
            nodes.add_row(*(Text(shortened(text)) for text in (*texts, ", ".join(made))))
        yield nodes


def _table(first: str, *others: str) -> Table:
    table = Table()
    table.add_column(first, overflow="fold")
    for heading in others:
        is_text = heading in ("class", "op", "module", "inputs", "outputs")
        table.add_column(
            heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text
        )
    return table
