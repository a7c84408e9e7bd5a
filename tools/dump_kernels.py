"""Prints what the CPU provider of the ONNX Runtime that this Python has can run; needs it alone.

    python dump_kernels.py

One object of JSON: "schemas" has [domain, op, since, deprecated, inputs, outputs, types,
attributes], with each input as [name, type string, option] and types as {type string: element
types}; "kernels" has [domain, op, start, end, types]; "required" has [domain, op, since,
attributes], the attributes that must be given, with their types, as {name: type}.
"""

import json
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state


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
    ]
    required = [
        [
            schema.domain,
            schema.name,
            schema.since_version,
            {n: str(a.type).rpartition(".")[2] for n, a in schema.attributes.items() if a.required},
        ]
        for schema in state.get_all_operator_schema()
    ]
    kernels = [
        [
            kernel.domain,
            kernel.op_name,
            *kernel.version_range,
            {name: sorted(set(types)) for name, types in kernel.type_constraints.items()},
        ]
        for kernel in state.get_all_opkernel_def()
        if kernel.provider == "CPUExecutionProvider"
    ]
    answer = {"version": onnxruntime.__version__, "schemas": schemas, "kernels": kernels}
    print(json.dumps({**answer, "required": required}, sort_keys=True))


if __name__ == "__main__":
    main()
