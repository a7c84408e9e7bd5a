"""What each release of ONNX Runtime takes, so that an export can refuse before a load does."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from custom_ops.onnx._kernels.table import Kernel, table

# Measured on the CPU builds by `python tools/probe_releases.py --all`: the newest opset and IR
# version that a session accepts. tests/matrix checks the table against the real releases.
RELEASES: Mapping[str, tuple[int, int]] = {
    "1.17": (20, 9),
    "1.18": (21, 10),
    "1.19": (21, 10),
    "1.20": (21, 10),
    "1.21": (22, 10),
    "1.22": (22, 10),
    "1.23": (23, 11),
    "1.24": (25, 13),
    "1.25": (26, 13),
    "1.26": (26, 13),
    "1.27": (26, 13),
    "1.28": (26, 13),
    "1.29": (26, 13),
    "1.30": (26, 13),
    "1.31": (26, 13),
    "1.32": (28, 14),
}

# The other domains that a release has without a library: the newest version, from a release on.
# Measured as the opsets were, by a model that imports them.
OTHER_DOMAINS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "ai.onnx.ml": (("1.17", 4), ("1.18", 5)),
    "ai.onnx.preview": (("1.27", 1),),
    "ai.onnx.preview.training": (("1.17", 1),),
    "ai.onnx.training": (("1.17", 1),),
    "com.microsoft": (("1.17", 1),),
    "com.microsoft.experimental": (("1.17", 1),),
    "com.microsoft.nchwc": (("1.17", 1),),
    "com.ms.internal.nhwc": (("1.17", 19), ("1.24", 25)),
    "org.pytorch.aten": (("1.17", 1),),
}


# What a kernel must take for a dtype; float16 runs through casts that the runtime puts around.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "float32": ("tensor(float)",),
    "float64": ("tensor(double)",),
    "float16": ("tensor(float16)", "tensor(float)"),
}


@dataclass(frozen=True)
class Target:
    """A release of ONNX Runtime.

    Attributes:
        release: Major and minor version, for example "1.20".
        opset: The newest opset of ai.onnx that it takes.
        ir_version: The newest IR version that it takes.
    """

    release: str
    opset: int
    ir_version: int

    def __str__(self) -> str:
        return f"onnxruntime=={self.release}"

    @property
    def takes_omitted_inputs(self) -> bool:
        """Whether a custom node may leave out an input before one that is given."""
        return self.at_least("1.18")

    def newest(self, domain: str) -> int | None:
        """Returns the newest version of a domain that it takes; None where it needs a library."""
        if domain == "":
            return self.opset
        versions = [v for first, v in OTHER_DOMAINS.get(domain, ()) if self.at_least(first)]
        return versions[-1] if versions else None

    def at_least(self, release: str) -> bool:
        """Returns whether this is a release, for example "1.20", or a later one."""
        return Version(self.release) >= Version(release)

    def why_not_native(self, op_type: str, opset: int, dtype: str) -> str | None:
        """Returns why a standard op cannot run here, or None where it can.

        Args:
            op_type: Name of the standard op.
            opset: Opset of the model.
            dtype: Element type of its inputs.
        """
        by_release = {release: _kernels(release, op_type, opset) for release in RELEASES}
        first = next((release for release, kernels in by_release.items() if kernels), None)
        if first is None:
            since = table(list(RELEASES)[-1]).versions("", op_type)[0].since
            return f"{op_type} needs opset {since}, got {opset}"
        if not by_release[self.release]:
            return f"onnxruntime has a CPU kernel for {op_type} from {first} on, got {self.release}"
        for kind in _KINDS.get(dtype, (f"tensor({dtype})",)):
            for kernel in by_release[self.release]:
                if all(kind in types for types in kernel.types.values()):
                    return None
        return f"onnxruntime {self.release} has no CPU kernel for {op_type} in {dtype}"


def _kernels(release: str, op_type: str, opset: int) -> list[Kernel]:
    schema = table(release).schema("", op_type, opset)
    return table(release).kernels(schema) if schema is not None else []


def target(name: str | None = None) -> Target:
    """Returns a release of ONNX Runtime by name.

    Args:
        name: For example "onnxruntime==1.20"; None for the one installed. A release newer than
            the table counts as the newest in it, which is warned about where it is named.

    Raises:
        ValueError: The name is no release of onnxruntime, or one before 1.17.

    Example:
        >>> import custom_ops
        >>> custom_ops.onnx.target("onnxruntime==1.20").opset
        21
    """
    named = name is not None
    if name is None:
        import onnxruntime

        name = f"onnxruntime=={onnxruntime.__version__}"
    package, _, wanted = name.partition("==")
    try:
        version = Version(wanted)
    except InvalidVersion:
        version = None
    if package.strip() != "onnxruntime" or version is None:
        raise ValueError(f"target: name must be a release like 'onnxruntime==1.20', got {name!r}")
    known = [Version(release) for release in RELEASES]
    if version < known[0]:
        raise ValueError(
            f"target: onnxruntime must be {known[0]} or later, got {wanted}; "
            "deploy a newer onnxruntime"
        )
    if named and version.release[:2] > known[-1].release:
        warnings.warn(
            f"target: onnxruntime must be {known[-1]} or earlier, which is as far as the tables "
            f"go, got {wanted}; what {known[-1]} takes is assumed",
            stacklevel=2,
        )
    release = str(max(v for v in known if v <= version))
    return Target(release, *RELEASES[release])
