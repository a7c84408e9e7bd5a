"""Loads models in the ONNX Runtime that this Python has; needs nothing but it.

    python load_models.py FIRST < paths

One line of JSON is printed for each path of the list from number FIRST on: null where a session of
it opens, else what is said. Where a model ends the process, the caller sees which.
"""

import json
import sys

import onnxruntime


def main() -> None:
    """Loads the models."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    for path in sys.stdin.read().splitlines()[int(sys.argv[1]) :]:
        said = None
        try:
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            said = " ".join(str(error).split())
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
