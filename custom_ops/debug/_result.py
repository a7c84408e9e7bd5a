"""What a comparison finds: the values, the faults among them, and what found no partner."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from custom_ops.debug import _bundle, _page, _report
from custom_ops.debug._evidence import Evidence
from custom_ops.debug._metrics import Details, Metrics
from custom_ops.onnx._page import write

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Value:
    """A value of the model beside its partner.

    Attributes:
        name: Its name in the file.
        node: Name of the node that makes it.
        op_type: Type of that node.
        nodes: Names of the nodes between the values compared before it and this one.
        module: Paths of the torch modules that it is the result of; several where the exporter
            has merged them.
        partner: What it is compared with: the op of torch, as "aten.convolution", or the value
            of the other file.
        source: File and line of the user's code; "" where unknown.
        shape: Of the partner.
        dtype: Of the partner, as "float32".
        metrics: What the nodes introduce: their result where they are fed with the partners of
            their inputs.
        arriving: The difference in the run of the whole model, earlier ones included.
        limit: The largest `introduced` that counts as rounding.
        limit_by: What the limit is made of: "rounding", "float64", "conditioning", "summation",
            "exact" or "tolerance"; "tie" and "choice" where other elements are as right.
        details: More numbers, where it is above the limit or among the first.
        note: What to know of it; "" if nothing.
    """

    name: str
    node: str
    op_type: str
    nodes: tuple[str, ...]
    module: tuple[str, ...]
    partner: str
    source: str
    shape: tuple[int, ...]
    dtype: str
    metrics: Metrics
    arriving: Metrics
    limit: float
    limit_by: str
    details: Details | None = None
    note: str = ""

    @property
    def introduced(self) -> float:
        """Largest absolute difference that the nodes introduce."""
        return self.metrics.max_abs

    @property
    def inherited(self) -> float:
        """Largest absolute difference in the run of the whole model."""
        return self.arriving.max_abs

    @property
    def share(self) -> float:
        """How many times its limit the nodes introduce."""
        if self.metrics.apart == 0:
            return 0.0
        return self.metrics.apart / self.limit if self.limit else math.inf

    @property
    def ok(self) -> bool:
        """Whether what the nodes introduce is within the limit."""
        return self.metrics.within(self.limit)


@dataclass(frozen=True)
class Fault(Value):
    """A value that its own nodes, and not what arrives there, make wrong.

    Attributes:
        kind: "nodes" where the nodes compute something else, "optimization" where only the
            optimized session does.
        difference: How the node differs from what the module exports to today, as "attribute
            epsilon is 1e-05, not 0.001"; "" where nothing differs or there is no module.
    """

    kind: str = "nodes"
    difference: str = ""


@dataclass(frozen=True)
class Unmatched:
    """A value without partner.

    Attributes:
        side: "model" (a value of the file), or "reference" (a result of the module, or a value of
            the other file).
        name: Its name, or the op of torch.
        op_type: Type of its node, or the op of torch.
        module: Path of its module; "" for the whole model, or where unknown.
        reason: Why it has none.
    """

    side: str
    name: str
    op_type: str
    module: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What a comparison found; true where all is within the limits.

    Attributes:
        values: Values with a partner, in the order of the graph.
        faults: Those that their own nodes make wrong, in the order of the graph.
        outputs: The outputs of the model in the session as it was asked for.
        unmatched: What has no partner.
        approximate: Whether values found their partners by shapes and numbers alone.
        uncompared: Outputs of the model that are not among the values and not right, or cannot be
            compared, a sentence each.
        notes: What else to know, a sentence each.
        model: Name of the model, for titles.
        versions: Of torch, onnx and onnxruntime.
        seconds: How long each part took.
        comparable: Whether there is anything to tell: not where onnxruntime has no kernels for the
            model, which the notes say.
        simulated: Whether nodes without a kernel in bfloat16 ran in float32, with rounded results.
        evidence: What proves the first faults of nodes, by the names of their values.
    """

    values: tuple[Value, ...]
    faults: tuple[Fault, ...]
    outputs: tuple[Value, ...] = ()
    unmatched: tuple[Unmatched, ...] = ()
    approximate: bool = False
    notes: tuple[str, ...] = ()
    model: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    seconds: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    comparable: bool = True
    simulated: bool = False
    evidence: Mapping[str, Evidence] = field(default_factory=dict, compare=False, repr=False)
    uncompared: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the model ran, there is no fault, and every output was compared and is right."""
        right = all(output.ok for output in self.outputs) and not self.uncompared
        return self.comparable and not self.faults and right

    def __bool__(self) -> bool:
        return self.ok

    @property
    def first_fault(self) -> Fault | None:
        """The first fault in the order of the graph; None where there is none."""
        return self.faults[0] if self.faults else None

    def __str__(self) -> str:
        return _report.text(self)

    def as_dict(self) -> dict[str, Any]:
        """Returns the comparison in the types of JSON, all values and their details included.

        Numbers that are not finite are "nan", "inf" and "-inf", which `float` reads.

        Example:
            >>> Comparison(values=(), faults=()).as_dict()["ok"]
            True
        """
        return _report.as_dict(self)

    def to_json(self, path: str | os.PathLike[str] | None = None, *, force: bool = False) -> str:
        """Returns the comparison as JSON, as `as_dict` has it.

        Args:
            path: Where to write it too.
            force: Whether to overwrite a file that is there.

        Raises:
            ValueError: The path is a folder, or exists and `force` is not given.

        Example:
            >>> Comparison(values=(), faults=()).to_json().splitlines()[1]
            '  "ok": true,'
        """
        return _report.to_json(self, path, force=force)

    def bundle(
        self,
        path: str | os.PathLike[str],
        fault: int | str = 0,
        *,
        scramble: bool = False,
        force: bool = False,
    ) -> None:
        """Writes a zip that shows a fault by itself, with a script that reproduces it.

        In it: the nodes of the fault's region as a model, what is fed to them, what they should
        give, the ops of torch that give it, the versions, and ``reproduce.py``, which needs
        onnxruntime alone (torch, where it is installed, gives the expected numbers again). No
        path of this machine and no line of the user's code is in it.

        Args:
            path: The zip to write.
            fault: Which of `faults`: its place, or the name of its value.
            scramble: Whether to put the numbers of all weights in other places. What they are is
                still known, but not of which input and output; zeros or ones alone stay.
            force: Whether it may overwrite a file.

        Raises:
            ValueError: There is no such fault, nothing is kept that proves it, scrambled weights
                do not show it or one has no partner on the other side, or the path is a folder, or
                exists and `force` is not given.
        """
        _bundle.write(self, path, fault, scramble=scramble, force=force)

    def to_dataframe(self) -> "pandas.DataFrame":
        """Returns the values as a table of pandas: a row for each, in the order of the graph.

        Raises:
            ImportError: pandas is not installed.
        """
        return _report.to_dataframe(self)

    def to_html(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Writes a page: one file that needs no other and no network.

        It shows the faults, the differences along the depth of the network, the modules, and all
        values with their metrics.

        Args:
            path: Where to write it.
            force: Whether to overwrite a file that is there.

        Raises:
            ValueError: The path is a folder, or exists and `force` is not given.

        Example:
            >>> path = getfixture("tmp_path") / "comparison.html"
            >>> Comparison(values=(), faults=()).to_html(path)
            >>> path.read_text(encoding="utf-8").splitlines()[0]
            '<!doctype html>'
        """
        write("to_html", path, _page.build(self), force)

    def plot(self) -> "Figure":
        """Draws what is introduced, inherited and allowed along the depth of the network.

        Returns:
            A figure of matplotlib: `figure.savefig("comparison.png")`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return _page.plot(self)

    def _repr_html_(self) -> str:
        return _page.brief(self)
