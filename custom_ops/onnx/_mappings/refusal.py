"""How a mapping says that it cannot write a call."""


class MappingRefused(ValueError):
    """A call that a mapping cannot write; one sentence with the remedy."""


class NeedsNewerOpset(MappingRefused):
    """A call at an opset that a mapping is not for."""


def refused_in(error: BaseException) -> MappingRefused | None:
    """Returns the refusal among the causes of an error of an exporter, if one is there."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MappingRefused):
        cause = cause.__cause__
    return cause
