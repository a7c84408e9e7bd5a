"""Opens a session in a process that may crash or hang; run by its path.

Reads from stdin, as JSON: the model's file, the libraries to register, and the folder of external
data where that is another one. Each line of stdout says what is done next; the last one of a failed
run is what failed, and stderr says why.
"""

import json
import sys

import onnxruntime


def _main() -> int:
    request = json.load(sys.stdin)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if request["folder"]:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, request["folder"])
    try:
        for library in request["libraries"]:
            print(library, flush=True)
            options.register_custom_ops_library(library)
        print("session", flush=True)
        onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
