"""Our ops served by onnxruntime-extensions from Python, for models that any op may be added to.

That package takes no lists of integers, no omitted inputs and no half types, and ends the process
where a function raises. So the model is rewritten in memory: a node becomes
``custom_ops.python::<Op>_<dtype>`` with its attributes in one JSON string, an input that is left
out becomes an empty one that the string names, half inputs are cast around the node; and the
function keeps an exception for the session to raise.
"""

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import onnxruntime_extensions
from onnxruntime_extensions import PyCustomOpDef, onnx_op

from custom_ops import _library
from custom_ops import numpy as numpy_functions
from custom_ops.onnx._model import open_model
from custom_ops.onnx._nodes import infer_dtypes, inline_callers, our_nodes
from custom_ops.onnx._reading import ModelLike
from custom_ops.ops._body import DOMAIN
from custom_ops.ops._registry import Op, ops

PYTHON_DOMAIN = f"{DOMAIN}.python"

_TYPES = {
    "float32": PyCustomOpDef.dt_float,
    "float64": PyCustomOpDef.dt_double,
    "int32": PyCustomOpDef.dt_int32,
    "int64": PyCustomOpDef.dt_int64,
    "bool": PyCustomOpDef.dt_bool,
}
_HALF = {
    "float16": (ir.DataType.FLOAT16, np.float16),
    "bfloat16": (ir.DataType.BFLOAT16, ml_dtypes.bfloat16),
}
_registered: set[tuple[str, str]] = set()
_errors: dict[int, BaseException] = {}
_model_numbers = itertools.count()
_NUMBER = f"{PYTHON_DOMAIN}.number"


class PythonKernelSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session of a rewritten model: its runs raise what the nodes of our ops raise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._number = int(self.get_modelmeta().custom_metadata_map[_NUMBER])
        self._turn = threading.Lock()  # else one run would take the exception of another

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model; see `onnxruntime.InferenceSession.run`."""
        return self._raising(super().run, *args, **kwargs)

    def run_with_ort_values(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model; see `onnxruntime.InferenceSession.run_with_ort_values`."""
        return self._raising(super().run_with_ort_values, *args, **kwargs)

    def run_with_iobinding(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: a bound output of another size would end the process."""
        self._refuse("run_with_iobinding")

    def run_async(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: an exception would have nobody to raise it to."""
        self._refuse("run_async")

    def _refuse(self, method: str) -> NoReturn:
        raise NotImplementedError(
            f"session: {method} must not be used with kernels='python', got a call; use run, "
            "run_with_ort_values or kernels='native'"
        )

    def _raising(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            try:
                return method(*args, **kwargs)
            finally:
                # A later node may have choked on the empty output of the one that failed.
                error = _errors.pop(self._number, None)
                if error is not None:
                    raise error


def library_path() -> str:
    """Returns the library of onnxruntime-extensions, which serves our functions from now on."""
    for op in ops().values():
        for dtype in op.spec.dtypes:
            if dtype in _TYPES:
                _register(op, dtype)
    return str(onnxruntime_extensions.get_library_path())


def rewritten(model: ModelLike) -> ir.Model:
    """Returns a model whose nodes of our ops are those that onnxruntime-extensions serves."""
    result = open_model(model)
    inline_callers(result)
    dtypes = infer_dtypes(result)
    number = next(_model_numbers)
    for node, op in list(our_nodes(result)):
        _rewrite_node(node, op, dtypes[node], number)
    for key in [key for key in result.functions if key[0] == DOMAIN]:
        del result.functions[key]
    result.opset_imports[PYTHON_DOMAIN] = 1
    result.metadata_props[_NUMBER] = str(number)
    return result


def _kinds(op: Op, dtype: str) -> tuple[list[str], list[str]]:
    """Returns the types of the inputs and outputs where the first input has the type `dtype`."""
    inputs = op.spec.input_dtypes[op.spec.dtypes.index(dtype)]
    return inputs, _library.core().output_dtypes(op.name, inputs)


def _inside(kind: str) -> str:
    """Returns what onnxruntime-extensions sees of a type."""
    return "float32" if kind in _HALF else kind


def _rewrite_node(node: ir.Node, op: Op, dtype: str, number: int) -> None:
    kinds, output_kinds = _kinds(op, dtype)
    attributes = []
    for given in op.spec.attributes:
        attribute = node.attributes.get(given.onnx_name)
        value = attribute.value if attribute is not None else given.default
        attributes.append(list(value) if isinstance(value, (list, tuple)) else value)
    inputs = [*node.inputs, *[None] * (len(op.spec.inputs) - len(node.inputs))]
    text = json.dumps(
        {
            "number": number,
            "kinds": kinds,
            "attributes": attributes,
            "omitted": [i for i, value in enumerate(inputs) if value is None],
        }
    )
    added: list[ir.Node] = []

    def add(node: ir.Node) -> ir.Value:
        added.append(node)
        return node.outputs[0]

    def given_input(value: ir.Value | None, kind: str) -> ir.Value:
        if value is None:
            empty = ir.tensor(np.zeros(0, dtype=_inside(kind)))
            return add(ir.node("Constant", [], {"value": empty}))
        if kind not in _HALF:
            return value
        return add(ir.node("Cast", [value], {"to": ir.DataType.FLOAT.value}))

    call = ir.node(
        f"{op.spec.onnx_name}_{_inside(dtype)}",
        [given_input(value, kind) for value, kind in zip(inputs, kinds, strict=True)],
        {"call": text},
        domain=PYTHON_DOMAIN,
        num_outputs=len(node.outputs),
    )
    added.append(call)
    results = [
        add(ir.node("Cast", [output], {"to": _HALF[kind][0].value})) if kind in _HALF else output
        for output, kind in zip(call.outputs, output_kinds, strict=True)
    ]
    assert node.graph is not None
    for i, new in enumerate(added):
        new.name = f"{node.name or node.outputs[0].name}/python{i}"
        for j, output in enumerate(new.outputs):
            output.name = f"{new.name}_{j}"
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], added, list(node.outputs), results
    )


def _register(op: Op, dtype: str) -> None:
    """Registers the Python function of an op and dtype with onnxruntime-extensions, once."""
    key = (op.spec.onnx_name, dtype)
    if key in _registered:
        return
    _registered.add(key)
    inputs, outputs = _kinds(op, dtype)

    @onnx_op(  # type: ignore[untyped-decorator]
        op_type=f"{PYTHON_DOMAIN}::{op.spec.onnx_name}_{dtype}",
        inputs=[_TYPES[kind] for kind in inputs],
        outputs=[_TYPES[kind] for kind in outputs],
        attrs={"call": PyCustomOpDef.dt_string},
    )
    def function(*tensors: Any, **attributes: Any) -> Any:
        call = json.loads(attributes["call"])
        try:
            arrays = [
                None if i in call["omitted"] else t.astype(_numpy_type(kind), copy=False)
                for i, (t, kind) in enumerate(zip(tensors, call["kinds"], strict=True))
            ]
            results = numpy_functions.compute(op.name, arrays, call["attributes"])
            results = [r.astype(k, copy=False) for r, k in zip(results, outputs, strict=True)]
        except BaseException as error:  # onnxruntime-extensions would end the process
            _errors.setdefault(call["number"], error)
            results = [np.zeros(0, dtype=kind) for kind in outputs]
        return results[0] if len(outputs) == 1 else tuple(results)


def _numpy_type(kind: str) -> Any:
    return _HALF[kind][1] if kind in _HALF else kind
