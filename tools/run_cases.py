"""Runs models in the ONNX Runtime that this Python has; needs nothing but it and NumPy.

    python run_cases.py FOLDER FIRST [LIBRARY]

FOLDER holds the file cases.json and what it names. One line of JSON is printed for each case from
number FIRST on, as soon as it is known: where a case ends the process, the caller sees which.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def run_case(folder: Path, case: dict[str, Any], library: str | None) -> str:
    """Returns what is wrong with a case; an empty string, if nothing."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if case["library"]:
        options.register_custom_ops_library(library)
    for other in case.get("libraries", ()):
        options.register_custom_ops_library(str(folder / other))
    session = onnxruntime.InferenceSession(
        str(folder / case["model"]), options, providers=["CPUExecutionProvider"]
    )
    found = ""
    for call in case["calls"]:
        with np.load(folder / call["arrays"]) as arrays:
            feeds = {k[3:]: arrays[k] for k in arrays.files if k.startswith("in_")}
            expected = [arrays[f"out_{i}"] for i in range(call["outputs"])]
        results = session.run(None, feeds)
        for i, wanted in enumerate(expected):
            found = found or difference(results[i], wanted, case["rtol"], case["atol"])
        if found:
            return f"{call['name']}: {found}"
    return ""


def difference(result: Any, wanted: Any, rtol: float, atol: float) -> str:
    """Returns how a result differs from what is wanted; an empty string, if it does not."""
    if result.shape != wanted.shape:
        return f"shape {list(result.shape)}, not {list(wanted.shape)}"
    result, wanted = result.astype(np.float64), wanted.astype(np.float64)
    if np.allclose(result, wanted, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    return f"off by {np.nanmax(np.abs(result - wanted)):.3g}"


def main() -> None:
    """Runs the cases that the command line names."""
    folder = Path(sys.argv[1])
    library = sys.argv[3] if len(sys.argv) > 3 else None
    for case in json.loads((folder / "cases.json").read_text())[int(sys.argv[2]) :]:
        outcome: dict[str, Any] = {"raised": None, "wrong": ""}
        try:
            outcome["wrong"] = run_case(folder, case, library)
        except Exception as error:
            outcome["raised"] = " ".join(str(error).split())
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
