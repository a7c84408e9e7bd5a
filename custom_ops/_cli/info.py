"""custom-ops info: what is installed, as text for a bug report."""

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from custom_ops._cli.options import AsJson
from custom_ops._cli.output import end, progress, write
from custom_ops._errors import first_line
from custom_ops._machine import instruction_sets, processor, version

_PACKAGES = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "onnx-ir",
    "onnxruntime-extensions",
    "numpy",
    "ml_dtypes",
)


def info(as_json: AsJson = False) -> None:
    """Show versions, processor, libraries and ops: the text to paste into a bug report."""
    with progress("Looking"):
        result = _collected()
    lines = [f"{'custom_ops':<24}{result['custom_ops']}"]
    lines += [f"{name:<24}{version or 'not installed'}" for name, version in _shown(result)]
    lines += [
        f"{'python':<24}{result['python']}",
        f"{'platform':<24}{result['platform']}",
        f"{'processor':<24}{result['processor']['name']}, {result['processor']['cores']} cores",
        f"{'instruction sets':<24}{' '.join(result['processor']['flags']) or 'unknown'}",
        f"{'of them, torch uses':<24}{result['processor']['torch']}",
        f"{'the kernels use':<24}{_described(result['kernels'])}",
    ]
    lines += [
        f"{title:<24}{library['path']}: {library['state']}"
        for title, library in result["libraries"].items()
    ]
    for name, op in result["ops"].items():
        lines.append(f"{'op ' + name:<24}{op['onnx']}({', '.join(op['inputs'])})")
    write(result, "\n".join(lines), as_json)
    end(result["ok"])


def _shown(result: dict[str, Any]) -> list[tuple[str, str | None]]:
    packages = result["packages"].items()
    return [(n, v) for n, v in packages if v is not None or not n.endswith("-gpu")]


def _collected() -> dict[str, Any]:
    import custom_ops
    from custom_ops.ops._registry import ops

    libraries, kernels = _libraries(), _kernels()
    loaded = all(library["state"] == "loads" for library in libraries.values())
    return {
        "ok": loaded and "error" not in kernels,
        "custom_ops": custom_ops.__version__,
        "packages": {name: version(name) for name in _PACKAGES},
        "python": f"{platform.python_implementation()} {sys.version}".replace("\n", " "),
        "platform": platform.platform(),
        "processor": processor(),
        "kernels": kernels,
        "libraries": libraries,
        "ops": {
            name: {
                "onnx": f"custom_ops::{op.spec.onnx_name}",
                "inputs": [given.name for given in op.spec.inputs],
                "attributes": [given.name for given in op.spec.attributes],
            }
            for name, op in sorted(ops().items())
        },
    }


def _kernels() -> dict[str, Any]:
    try:
        return instruction_sets()
    except (ImportError, RuntimeError) as error:
        return {"error": first_line(error)}


def _described(kernels: dict[str, Any]) -> str:
    if "error" in kernels:
        return str(kernels["error"])
    return f"{kernels['in_use']} (CUSTOM_OPS_ISA chooses among {', '.join(kernels['supported'])})"


def _libraries() -> dict[str, dict[str, str]]:
    """Returns where the kernel library and its doors are, and whether they load."""
    import custom_ops
    from custom_ops import _library

    def in_torch() -> str:
        _library.load_torch_ops()
        return _where("_torch")

    def in_python() -> str:
        return str(_library.core().__file__)

    def in_onnxruntime() -> str:
        import onnxruntime

        onnxruntime.SessionOptions().register_custom_ops_library(custom_ops.get_library_path())
        return custom_ops.get_library_path()

    return {
        "kernels, ONNX Runtime": _tried(in_onnxruntime),
        "torch library": _tried(in_torch),
        "Python library": _tried(in_python),
    }


def _tried(load: Callable[[], str]) -> dict[str, str]:
    try:
        return {"path": load(), "state": "loads"}
    except Exception as error:
        return {"path": str(Path(__file__).parents[1]), "state": first_line(error)}


def _where(name: str) -> str:
    return str(sys.modules[f"custom_ops.{name}"].__file__)
