"""custom-ops verify: compares an ONNX file with the torch module it came from."""

from typing import Any

from custom_ops._cli.modules import find
from custom_ops._cli.options import Args, AsJson, Factory, Kernels, Model
from custom_ops._cli.output import Failure, end, first_line, progress, write
from custom_ops._cli.run import open_session


def verify(
    model: Model,
    factory: Factory,
    args: Args = None,
    kernels: Kernels = "native",
    as_json: AsJson = False,
) -> None:
    """Compare an ONNX file in ONNX Runtime with its torch module.

    On the example inputs, and on inputs with each size doubled that the file leaves open.
    """
    with progress("Loading the model and the module") as report:
        session = open_session(model, kernels)
        found = find(factory, args or ())
        report("Comparing", 0, 0)
        import custom_ops.onnx

        try:
            verification = custom_ops.onnx.verify(
                model,
                found.module,
                found.args,
                more_args=_doubled(found.args, session.get_inputs()),
                kernels=kernels,
            )
        except Exception as error:
            raise Failure(
                f"verify: {factory} and {model} must take the example inputs, got "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
    checks = [vars(check) for check in verification.checks]
    write({"ok": bool(verification), "checks": checks}, str(verification), as_json)
    end(bool(verification))


def _doubled(args: tuple[Any, ...], inputs: list[Any]) -> list[list[Any]]:
    """Returns the inputs with every size doubled that the model leaves open, if there is one."""
    import torch

    if len(args) != len(inputs) or not all(isinstance(arg, torch.Tensor) for arg in args):
        return []
    doubled = []
    for tensor, given in zip(args, inputs, strict=True):
        for axis, dim in enumerate(given.shape[: tensor.dim()]):
            if not isinstance(dim, int):
                tensor = torch.cat([tensor, tensor], axis)
        doubled.append(tensor)
    changed = any(new.shape != old.shape for new, old in zip(doubled, args, strict=True))
    return [doubled] if changed else []
