"""Our ops served by onnxruntime-extensions from Python, for models that any op may be added to.

That package takes no lists of integers, no omitted inputs and no half types, and ends the process
where a function raises. So the model is rewritten in memory: a node becomes
``custom_ops.python::<Op>_<dtype>`` with its attributes in one JSON string, an input that is left
out becomes an empty one that the string names, half inputs are cast around the node; and the
function keeps an exception for the session to raise.
"""

import json
import threading
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import onnxruntime_extensions
from onnxruntime_extensions import PyCustomOpDef, onnx_op

from custom_ops import numpy as numpy_functions
from custom_ops.onnx._lowering import our_nodes, infer_dtypes
from custom_ops.onnx._model import ModelLike, open_model
from custom_ops.ops._body import DOMAIN
from custom_ops.ops._registry import Op, ops

PYTHON_DOMAIN = f"{DOMAIN}.python"

_TYPES = {"float32": PyCustomOpDef.dt_float, "float64": PyCustomOpDef.dt_double}
_registered: set[tuple[str, str]] = set()
_errors: dict[int, BaseException] = {}
_lock = threading.Lock()


class PythonKernelSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session whose nodes of our ops run in Python; `run` raises what they raise."""

    def __init__(
        self, model: ModelLike, options: onnxruntime.SessionOptions, providers: list[Any]
    ) -> None:
        # All of them, and before the library is registered: it keeps pointers into their list.
        for op in ops().values():
            for dtype in _TYPES:
                _register(op, dtype)
        options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
        rewritten = _rewrite(open_model(model), id(self))
        super().__init__(
            ir.to_proto(rewritten).SerializeToString(), options, providers=providers
        )

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        """Runs the model; see `onnxruntime.InferenceSession.run`."""
        _errors.pop(id(self), None)
        results, failure = None, None
        try:
            results = super().run(output_names, input_feed, run_options)
        except Exception as error:  # a later node may choke on the empty output of a failed one
            failure = error
        kept = _errors.pop(id(self), None)
        if kept is not None:
            raise kept
        if failure is not None:
            raise failure
        return results


def _rewrite(model: ir.Model, session: int) -> ir.Model:
    dtypes = infer_dtypes(model)
    for node, op in list(our_nodes(model)):
        _rewrite_node(model, node, op, dtypes[node], session)
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    model.opset_imports[PYTHON_DOMAIN] = 1
    return model


def _rewrite_node(model: ir.Model, node: ir.Node, op: Op, dtype: str, session: int) -> None:
    inside = dtype if dtype in _TYPES else "float32"
    attributes = []
    for given in op.spec.attributes:
        attribute = node.attributes.get(given.onnx_name)
        value = attribute.value if attribute is not None else given.default
        attributes.append(list(value) if isinstance(value, (list, tuple)) else value)
    inputs = list(node.inputs) + [None] * (len(op.spec.inputs) - len(node.inputs))
    text = json.dumps(
        {
            "session": session,
            "dtype": dtype,
            "attributes": attributes,
            "omitted": [i for i, value in enumerate(inputs) if value is None],
        }
    )
    added: list[ir.Node] = []

    def cast(value: ir.Value | None, to: str) -> ir.Value:
        if value is None:
            empty = ir.node("Constant", [], {"value": ir.tensor(np.zeros(0, dtype=inside))})
            added.append(empty)
            return empty.outputs[0]
        if dtype == inside:
            return value
        types = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16}
        kind = types.get(to, ir.DataType.BFLOAT16)
        added.append(ir.node("Cast", [value], {"to": kind.value}))
        return added[-1].outputs[0]

    given_inputs = [cast(value, inside) for value in inputs]
    call = ir.node(
        f"{op.spec.onnx_name}_{inside}",
        given_inputs,
        {"call": text},
        domain=PYTHON_DOMAIN,
        num_outputs=len(node.outputs),
    )
    added.append(call)
    results = [cast(output, dtype) for output in call.outputs]
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
    with _lock:
        if key in _registered:
            return
        _registered.add(key)
    kind = _TYPES[dtype]
    outputs = len(op.spec.outputs)

    @onnx_op(  # type: ignore[untyped-decorator]
        op_type=f"{PYTHON_DOMAIN}::{op.spec.onnx_name}_{dtype}",
        inputs=[kind] * len(op.spec.inputs),
        outputs=[kind] * outputs,
        attrs={"call": PyCustomOpDef.dt_string},
    )
    def function(*tensors: Any, **attributes: Any) -> Any:
        call = json.loads(attributes["call"])
        try:
            arrays = [_as_called(t, i, call) for i, t in enumerate(tensors)]
            results = numpy_functions.compute(op.name, arrays, call["attributes"])
            results = [r.astype(dtype) for r in results]
        except BaseException as error:  # onnxruntime-extensions would end the process
            _errors[call["session"]] = error
            results = [np.zeros(0, dtype=dtype)] * outputs
        return results[0] if outputs == 1 else tuple(results)


def _as_called(array: Any, index: int, call: dict[str, Any]) -> Any:
    """Returns an input as the node has it: left out, or in its half type."""
    if index in call["omitted"]:
        return None
    if call["dtype"] == "bfloat16":
        import ml_dtypes

        return array.astype(ml_dtypes.bfloat16)
    return array.astype(call["dtype"], copy=False)
