"""Prints what the CPU provider of the ONNX Runtime that this Python has can run; needs it alone.

    python dump_kernels.py

One object of JSON: "schemas" has [domain, op, since, deprecated, inputs, outputs, types,
attributes], with each input as [name, type string, option] and types as {type string: element
types}; "kernels" has [domain, op, start, end, types].
"""

import json
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

# Domains that the runtime rewrites nodes into; no file has them.
_INTERNAL = ("com.ms.internal.nhwc", "com.microsoft.nchwc")


def parameter(given: Any) -> list[str]:
    """Returns an input or output of a schema."""
    return [given.name, given.typeStr, given.option.name]


def main() -> None:
    """Prints schemas and kernels."""
    schemas = [
        [
            schema.domain,
            schema.name,
            schema.since_version,
            schema.deprecated,
            [parameter(each) for each in schema.inputs],
            [parameter(each) for each in schema.outputs],
            {c.type_param_str: sorted(set(c.allowed_type_strs)) for c in schema.type_constraints},
            sorted(schema.attributes),
        ]
        for schema in state.get_all_operator_schema()
        if schema.domain not in _INTERNAL
    ]
    kernels = [
        [
            kernel.domain,
            kernel.op_name,
            *kernel.version_range,
            {name: sorted(set(types)) for name, types in kernel.type_constraints.items()},
        ]
        for kernel in state.get_all_opkernel_def()
        if kernel.provider == "CPUExecutionProvider" and kernel.domain not in _INTERNAL
    ]
    print(
        json.dumps(
            {"version": onnxruntime.__version__, "schemas": schemas, "kernels": kernels},
            sort_keys=True,
        )
    )


if __name__ == "__main__":
    main()
