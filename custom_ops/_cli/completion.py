"""The values of options that a shell completes; each function imports what it needs when asked."""


def lowerings() -> list[str]:
    """Returns what ``--lowering`` and ``--to`` take."""
    from custom_ops.onnx._lowering import LOWERINGS

    return list(LOWERINGS)


def exporters() -> list[str]:
    """Returns what ``--exporter`` takes."""
    from custom_ops.onnx._exporters import EXPORTERS

    return list(EXPORTERS)


def kernels() -> list[str]:
    """Returns what ``--kernels`` takes."""
    from custom_ops.onnx._session import KERNELS

    return list(KERNELS)


def targets() -> list[str]:
    """Returns the releases that ``--target`` knows."""
    from custom_ops.onnx import RELEASES

    return [f"onnxruntime=={release}" for release in RELEASES]


def sources() -> list[str]:
    """Returns the forms that ``--from`` takes."""
    from custom_ops.onnx._replace import sources

    return list(sources())


def ops() -> list[str]:
    """Returns the ops that ``--op`` takes."""
    from custom_ops.ops._registry import ops

    return list(ops())
