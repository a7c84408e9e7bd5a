"""custom-ops verify: compares an ONNX file with the torch module it came from."""

from typing import Any

from custom_ops._cli.modules import find
from custom_ops._cli.options import Args, AsJson, Factory, Kernels, Libraries, Model
from custom_ops._cli.output import Failure, end, progress, write
from custom_ops._cli.run import open_session
from custom_ops._errors import first_line


def verify(
    model: Model,
    factory: Factory,
    args: Args = None,
    kernels: Kernels = "native",
    library: Libraries = None,
    as_json: AsJson = False,
) -> None:
    """Compare an ONNX file in ONNX Runtime with its torch module.

    On the example inputs, and on two other sizes where the file leaves sizes open.
    """
    with progress("Loading the model and the module") as report:
        session = open_session(model, kernels, library or ())
        found = find(factory, args or ())
        report("Comparing", 0, 0)
        import custom_ops.onnx

        try:
            verification = custom_ops.onnx.verify(
                model,
                found.module,
                found.args,
                more_args=_other_sizes(found.args, session.get_inputs()),
                kernels=kernels,
                libraries=library or (),
            )
        except Exception as error:
            raise Failure(
                f"verify: {factory} and {model} must take the example inputs, got "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
    checks = [vars(check) for check in verification.checks]
    write({"ok": bool(verification), "checks": checks}, str(verification), as_json)
    end(bool(verification))


def _other_sizes(args: tuple[Any, ...], inputs: list[Any]) -> list[tuple[Any, ...]]:
    """Returns the inputs in other sizes, where the model leaves sizes open."""
    import torch

    from custom_ops.onnx._inputs import Call, other_sizes

    if len(args) != len(inputs) or not all(isinstance(arg, torch.Tensor) for arg in args):
        return []
    axes = {
        given.name: {axis: str(dim) for axis, dim in enumerate(given.shape) if type(dim) is not int}
        for given in inputs
    }
    if not any(axes.values()):
        return []
    return [call.args for call in other_sizes(Call(args, {}), axes, [i.name for i in inputs])]
