"""custom-ops run: runs an ONNX file, on random inputs where none are given."""

import shlex
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from custom_ops._cli.options import AsJson, Kernels, Libraries, Model
from custom_ops._cli.output import Failure, progress, write
from custom_ops._cli.tensors import chosen, feeds, named, save_arrays
from custom_ops._errors import first_line

_RUNS = 5
_SECONDS = 3.0  # of timing; slow models get fewer runs


def run(
    model: Model,
    kernels: Kernels = "native",
    library: Libraries = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZES",
            help="Sizes of a random input, for example x=2x3x8x8. Sizes that the model leaves open "
            "are else 1 for the first axis and 16 for the others.",
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=FILE", help="An input, for example x=file.npy."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder to write each output to, as NAME.npy."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run an ONNX file in ONNX Runtime; show its outputs and how long it takes."""
    shapes = named("--shape", shape or (), "x=2x3x8x8")
    files = named("--input", given or (), "x=file.npy")
    with progress("Opening the model") as report:
        session = open_session(model, kernels, library or ())
        inputs = feeds(session.get_inputs(), shapes, files)
        report("Running", 0, 0)
        try:
            outputs, times = _run(session, inputs)
        except Exception as error:
            raise Failure(
                f"run: the model must run on {_sizes(inputs)}, got: {first_line(error)}; give "
                "other sizes with --shape, or arrays with --input"
            ) from error
    names = [each.name for each in session.get_outputs()]
    saved = save_arrays(output, names, outputs) if output is not None else {}
    milliseconds = statistics.median(times)
    result = {
        "ok": True,
        "inputs": {name: _described(array) for name, array in inputs.items()},
        "outputs": {
            name: {**_described(array), "file": saved.get(name)}
            for name, array in zip(names, outputs, strict=True)
        },
        "milliseconds": milliseconds,
        "runs": len(times),
        "kernels": kernels,
    }
    table = Table(
        title=f"{model}: {milliseconds:.3g} ms, median of {len(times)} runs", title_justify="left"
    )
    for heading in ("", "name", "dtype", "shape", "min", "max", "mean", "std"):
        table.add_column(heading, justify="right" if heading in ("min", "max") else "left")
    for kind in ("inputs", "outputs"):
        for name, values in result[kind].items():  # type: ignore[attr-defined]
            numbers = (_number(values[key]) for key in ("min", "max", "mean", "std"))
            shown = "x".join(map(str, values["shape"])) or "scalar"
            table.add_row(kind.removesuffix("s"), name, values["dtype"], shown, *numbers)
    write(result, table, as_json)


def open_session(model: Path, kernels: str, libraries: Sequence[str]) -> Any:
    """Opens a session on a file, with libraries of custom ops, or says in one sentence why not."""
    import onnxruntime

    import custom_ops.onnx
    from custom_ops.onnx._reading import read
    from custom_ops.onnx._session import KERNELS

    chosen("--kernels", kernels, KERNELS)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        for library in libraries:
            options.register_custom_ops_library(library)
        return custom_ops.onnx.session(model, kernels=kernels, sess_options=options)
    except Exception as error:
        read(model)  # which says it where the file is no model
        raise Failure(
            f"{model} must load with --kernels {kernels}, got: {first_line(error)}; see "
            f"custom-ops doctor {shlex.quote(str(model))}"
        ) from error


def _run(session: Any, inputs: dict[str, Any]) -> tuple[list[Any], list[float]]:
    """Returns the outputs, and milliseconds of several runs after the first."""
    from custom_ops.onnx._verify import run

    outputs = run(session, inputs)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < _RUNS and (not times or time.perf_counter() - begin < _SECONDS):
        start = time.perf_counter()
        run(session, inputs)
        times.append(1000 * (time.perf_counter() - start))
    return outputs, times


def _sizes(inputs: dict[str, Any]) -> str:
    return ", ".join(f"{n}={'x'.join(map(str, a.shape)) or 'scalar'}" for n, a in inputs.items())


def _described(value: Any) -> dict[str, Any]:
    """Returns dtype, shape and statistics of an array; those of None where it has no numbers."""
    import numpy as np

    array = np.asarray(value)
    numeric = array.size > 0 and (array.dtype.kind in "biuf" or "float" in array.dtype.name)
    wide = array.astype(np.float64) if numeric else None
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "min": None if wide is None else float(wide.min()),
        "max": None if wide is None else float(wide.max()),
        "mean": None if wide is None else float(wide.mean()),
        "std": None if wide is None else float(wide.std()),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
