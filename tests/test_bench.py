"""The benchmarks: what they check, refuse, write and compare; never how long anything takes."""

import dataclasses
import fnmatch
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import custom_ops
from custom_ops._bench import selection
from custom_ops._bench.checking import ELEMENTS, NEARLY_ALL, NORM, Differs, difference
from custom_ops._bench.contenders import (
    KERNEL,
    ONNXRUNTIME,
    OURS,
    PEER,
    TORCH,
    VARIANT,
    Contender,
)
from custom_ops._bench.plot import draw
from custom_ops._bench.report import Report, read
from custom_ops._bench.results import Record, Refused
from custom_ops._bench.runner import Contest, Settings, compete, contest
from custom_ops._bench.sessions import session_run
from custom_ops._bench.summary import summarise
from custom_ops._bench.table import shown
from custom_ops._bench.timing import TimesItself, Timing, interleave, turns_of
from custom_ops.cli import execute
from custom_ops.onnx._single_node import single_node
from custom_ops.ops._registry import ops
from custom_ops.ops._samples import Bound, Tolerance

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
EXACT = Tolerance(0.0, 0.0)
ANY_MACHINE = Settings(rounds=2, seconds=0.01, noisy=True)


class Watch:
    """A clock that functions advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float, result: Any = 1.0) -> Callable[[], Any]:
        """Returns a function that takes these times in turn, again and again."""
        calls = iter(range(10**9))

        def run() -> Any:
            self.now += seconds[next(calls) % len(seconds)]
            return torch.tensor(result)

        return run


def contender(name: str, kind: str, run: Callable[[], Any], runtime: str = TORCH) -> Contender:
    return Contender(name, runtime, kind, lambda: run)


def fake(watch: Watch, *others: Contender, bound: Callable[[], Any] | None = None) -> Contest:
    ours = contender("ours", KERNEL, watch.takes(0.2))
    least = Bound("bound", bound or watch.takes(0.1), flops=10**9, bytes=10**6)
    return Contest("fake", "case", True, "forward", [ours, *others], EXACT, least)


def measured(
    *others: Contender, watch: Watch | None = None, case: str = "case", dense: bool = True
) -> Record:
    watch = watch or Watch()
    given = dataclasses.replace(fake(watch, *others), case=case, dense=dense)
    outcome = compete(given, ANY_MACHINE, watch)
    assert isinstance(outcome, Record)
    return outcome


# timing


def test_each_function_gets_its_own_times() -> None:
    watch = Watch()
    runs = {"fast": watch.takes(1e-5), "slow": watch.takes(1.0)}
    times = interleave(runs, rounds=20, seconds=7.0, clock=watch)
    assert times["fast"].median == pytest.approx(1e-2)
    assert times["fast"].turns == 20
    assert times["slow"].median == pytest.approx(1e3)
    assert times["slow"].turns == 7


def test_slow_functions_still_get_turns() -> None:
    assert turns_of(100.0, rounds=20, seconds=1.0) == 5
    assert turns_of(100.0, rounds=3, seconds=1.0) == 3
    assert turns_of(0.0, rounds=20, seconds=1.0) == 20


def test_spread_is_that_of_the_quartiles() -> None:
    assert Timing(median=2.0, low=1.5, high=2.5, fastest=1.0, turns=9).spread == 0.5


# who competes


def test_ratios_and_shares() -> None:
    watch = Watch()
    record = measured(
        contender("peer", PEER, watch.takes(0.6)),
        contender("ours elsewhere", KERNEL, watch.takes(0.3), ONNXRUNTIME),
        contender("variant", VARIANT, watch.takes(0.9), ONNXRUNTIME),
        watch=watch,
    )
    over_bound = {entry.name: record.over_bound(entry) for entry in record.entries}
    over_ours = {entry.name: record.over_ours(entry) for entry in record.entries}
    expected = {"ours": 2.0, "peer": 6.0, "ours elsewhere": 3.0, "variant": 9.0}
    assert over_bound == pytest.approx(expected)
    assert (over_ours["ours"], over_ours["ours elsewhere"]) == (None, None)
    assert over_ours["peer"] == pytest.approx(3.0)
    assert over_ours["variant"] == pytest.approx(3.0)
    with_peak = dataclasses.replace(record, peak=10e9)
    assert with_peak.share_of_peak(record.entries[0]) == pytest.approx(0.5)
    assert dataclasses.replace(record, peak=None).share_of_peak(record.entries[0]) is None


@pytest.mark.parametrize("result", [1.1, float("nan"), [1.0]])
def test_a_contender_must_compute_what_we_do(result: Any) -> None:
    watch = Watch()
    wrong = contender("wrong", PEER, watch.takes(0.1, result=result))
    with pytest.raises(Differs, match="fake case: wrong must "):
        compete(fake(watch, wrong), ANY_MACHINE, watch)


def test_ways_to_compare() -> None:
    ours, tolerance = np.ones(2000), Tolerance(rtol=1e-3, atol=0.0)
    one_jump, many_jumps, little = ours.copy(), ours.copy(), ours * 1.02
    one_jump[0], many_jumps[:100] = 1.1, 1.1
    equal = {
        (name, way)
        for name, got in (("one", one_jump), ("many", many_jumps), ("little", little))
        for way in (ELEMENTS, NEARLY_ALL, NORM)
        if _is_equal(got, ours, tolerance if way != NORM else Tolerance(1e-2, 0.0), way)
    }
    assert equal == {("one", NEARLY_ALL), ("one", NORM)}


def _is_equal(got: Any, ours: Any, tolerance: Tolerance, way: str) -> bool:
    try:
        difference("it", [got], [ours], tolerance, way)
    except Differs:
        return False
    return True


def test_a_contender_that_cannot_compute_it_is_left_out() -> None:
    def fail() -> Any:
        raise NotImplementedError("no such kernel")

    record = measured(contender("broken", PEER, fail))
    assert [entry.name for entry in record.entries] == ["ours"]
    assert record.absent == {"broken": "no such kernel"}
    with pytest.raises(NotImplementedError):
        measured(contender("ours too", KERNEL, fail))


def test_in_half_types_a_peer_may_round_otherwise() -> None:
    watch = Watch()
    wrong = contender("wrong", PEER, watch.takes(0.1, result=1.1))
    settings = dataclasses.replace(ANY_MACHINE, dtype="float16")
    outcome = compete(fake(watch, wrong), settings, watch)
    assert isinstance(outcome, Record)
    assert "wrong must compute what we do" in outcome.absent["wrong"]


def test_figures_of_a_noisy_machine_are_refused() -> None:
    watch = Watch()
    unsteady = fake(watch, bound=watch.takes(0.1, 0.4, 0.7))
    settings = Settings(rounds=9, waiting=math.inf)
    outcome = compete(unsteady, settings, watch)
    assert isinstance(outcome, Refused)
    assert "bound must spread by at most 25%, got " in outcome.sentence
    steady = compete(fake(watch), settings, watch)
    assert isinstance(steady, Record)
    waiting = compete(fake(watch), dataclasses.replace(settings, waiting=-1.0), watch)
    assert isinstance(waiting, Refused)
    assert "bound must wait for a core at most" in waiting.sentence


# what comes out


@pytest.fixture
def report() -> Report:
    watch = Watch()
    found = Report(selection.facts([ANY_MACHINE]))
    for case, dense, seconds in (("a", True, 0.4), ("b", True, 0.9), ("c", False, 0.3)):
        peer = contender("peer", PEER, watch.takes(seconds))
        found.add(measured(peer, watch=watch, case=case, dense=dense))
    found.add(Refused("fake", "d", "forward", "float32", 2, "fake d: too noisy"))
    return found


def test_summary(report: Report) -> None:
    lines = {(s.dense, s.name, s.ratio): s for s in summarise(report.records)}
    peer = lines[True, "peer", "over ours"]
    assert (peer.mean, peer.worst) == pytest.approx((3.0, 2.0))
    assert (peer.worst_case, peer.cases) == ("a", 2)
    assert lines[True, "peer", "over the bound"].worst_case == "b"
    assert lines[False, "peer", "over ours"].mean == pytest.approx(1.5)


def test_json_comes_back_as_it_was(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "new" / "report.json")
    assert read(tmp_path / "new" / "report.json") == report
    content = json.loads((tmp_path / "new" / "report.json").read_text())
    assert set(content) == {"schema", "facts", "records", "refused", "summary"}
    assert {"commit", "packages", "processor", "settings"} <= set(content["facts"])
    assert {"name", "flags"} <= set(content["facts"]["processor"])
    fields = {field.name for field in dataclasses.fields(Record)}
    for record in content["records"]:
        assert set(record) == fields
        for entry in record["entries"]:
            assert {"over_bound", "over_ours", "share_of_peak"} <= set(entry)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="must be a report of schema 1, got schema None"):
        read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("x")
    with pytest.raises(ValueError, match="must be JSON"):
        read(tmp_path / "x.json")


def test_plot(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_plot_says_what_it_needs(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"needs matplotlib, got none; run `pip install"):
        draw(report, tmp_path / "plot.png")


# the cases of the ops


def test_names_of_cases() -> None:
    for op in ops().values():
        names = [case.name for case in op.benchmarks]
        assert len(set(names)) == len(names)
        for name in names:
            assert not set(name) & set(" *?[]")
            assert fnmatch.filter(names, name) == [name]
        assert any(case.quick for case in op.benchmarks)


def test_selection() -> None:
    everything = selection.select([], [], quick=False)
    quick = selection.select([], [], quick=True)
    assert 0 < len(quick) < len(everything)
    dense = selection.select(["deform_conv2d"], ["3x3-256@*", "1x1-64@128"], quick=True)
    assert {case.name for _, case in dense} >= {"3x3-256@14", "3x3-256@64", "1x1-64@128"}
    with pytest.raises(ValueError, match="--op must be one of"):
        selection.select(["nothing"], [], quick=False)
    with pytest.raises(ValueError, match="--case must fit one of"):
        selection.select([], ["nothing"], quick=False)


@pytest.mark.parametrize(
    "op", [op for op in ops().values() if op.composition], ids=lambda op: op.name
)
def test_compositions_compute_the_op(op: Any) -> None:
    """Where positions are numbers and the mask is whole; the rest is not what is timed."""
    count = 0
    for sample in op.samples(torch.Generator().manual_seed(0)):
        if any(word in sample.name for word in ("finite", "neutral", "one_element", "zero")):
            continue
        expected = op.public(*sample.args, **sample.kwargs)
        torch.testing.assert_close(op.composition(*sample.args, **sample.kwargs), expected)
        count += 1
    assert count > 5


@pytest.mark.parametrize("name", ops())
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_case_of_each_op(name: str, direction: str) -> None:
    op = ops()[name]
    case = next(case for case in reversed(op.benchmarks) if case.quick)
    settings = dataclasses.replace(ANY_MACHINE, backward=direction == "backward")
    record = compete(contest(op, case, settings), settings)
    assert isinstance(record, Record)
    kinds = {(entry.runtime, entry.kind) for entry in record.entries}
    expected = {(TORCH, KERNEL)}
    if direction == "forward":
        expected |= {(ONNXRUNTIME, KERNEL), (ONNXRUNTIME, VARIANT)}
        assert "our Python kernels" in {entry.name for entry in record.entries}
    assert expected <= kinds


def test_weights_can_be_part_of_the_model() -> None:
    op = ops()["mul_add"]
    a, b = torch.ones(3), torch.arange(3.0)
    model, feeds = single_node(op, op.arguments(a, b), constant=["b"])
    assert set(feeds) == {"a"}
    (result,) = custom_ops.onnx.session(model).run(None, feeds)
    np.testing.assert_array_equal(result, [2.0, 3.0, 4.0])


def test_sessions_of_the_other_process_give_the_same() -> None:
    op = ops()["mul_add"]
    model, feeds = single_node(op, op.arguments(torch.ones(3), torch.arange(3.0)))
    here, there = (session_run(model, feeds, "native", 1, apart) for apart in (False, True))
    np.testing.assert_array_equal(here()[0], there()[0])
    assert isinstance(there, TimesItself)
    assert there.time(3, lambda: 0.0) > 0.0


def test_errors_of_the_other_process_arrive() -> None:
    op = ops()["mul_add"]
    model, feeds = single_node(op, op.arguments(torch.ones(3), torch.ones(3)))
    with pytest.raises(RuntimeError, match="Got: 4 Expected: 3"):
        session_run(model, {**feeds, "a": np.ones(4, np.float32)}, "native", 1)()
    model.graph.node[0].op_type = "NoSuchOp"
    with pytest.raises(RuntimeError, match="NoSuchOp"):
        session_run(model, feeds, "native", 1)


# the ways in


def test_bench_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--quick", "--op", "mul_add", "--case", "4-elements", "--noisy"]
    assert execute([*arguments, "--json", "--threads", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["ok"]
    assert [record["case"] for record in content["records"]] == ["4-elements"]
    assert execute(arguments) == 0
    assert "ours in ONNX Runtime" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the scripts importable; afterwards their modules, of common names, are gone."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SCRIPTS)
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == SCRIPTS:
            del sys.modules[name]


@pytest.mark.usefixtures("scripts")
def test_run_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import run
    from script import run as run_script

    path = tmp_path / "out.json"
    assert run_script(run.main, ["--case", "4-elements", "--noisy", "--json", str(path)]) == 0
    assert [record.case for record in read(path).records] == ["4-elements"]
    assert run_script(run.main, ["--list"]) == 0
    assert "deform_conv2d 3x3-256@14 dense quick" in capsys.readouterr().out
    assert run_script(run.main, ["--case", "nothing"]) == 2


@pytest.mark.usefixtures("scripts")
def test_compare_script(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import compare
    from script import run as run_script

    def changed(kind: str, factor: float) -> str:
        """Writes the report with the times of one kind of contender multiplied."""

        def scaled(entry: Any) -> Any:
            if entry.kind != kind:
                return entry
            timing = dataclasses.replace(entry.timing, median=entry.timing.median * factor)
            return dataclasses.replace(entry, timing=timing)

        records = [
            dataclasses.replace(record, entries=tuple(map(scaled, record.entries)))
            for record in report.records
        ]
        path = tmp_path / f"{kind}{factor}.json"
        Report(report.facts, records).write(path)
        return str(path)

    same, slower = changed(KERNEL, 1.0), changed(KERNEL, 1.2)
    assert run_script(compare.main, [same, same]) == 0
    assert run_script(compare.main, [same, slower]) == 1
    assert "3 of 6 slower than 1.1 times" in capsys.readouterr().out
    assert run_script(compare.main, [slower, same]) == 0
    assert run_script(compare.main, [same, slower, "--threshold", "1.3"]) == 0
    assert run_script(compare.main, [same, changed(PEER, 2.0)]) == 0
    assert run_script(compare.main, [same, str(tmp_path / "missing.json")]) == 2
    Report(report.facts).write(tmp_path / "empty.json")
    assert run_script(compare.main, [same, str(tmp_path / "empty.json")]) == 1


@pytest.mark.usefixtures("scripts")
def test_report_script(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import report as script
    from script import run as run_script

    report.write(tmp_path / "report.json")
    rows = [{"op": "fake", "case": "a", "direction": "forward", "threads": 2}]
    content = {"facts": report.facts, "memory": [{**rows[0], "contender": "x", "mebibytes": 1.5}]}
    (tmp_path / "memory.json").write_text(json.dumps(content))
    files = [str(tmp_path / name) for name in ("report.json", "memory.json")]
    assert run_script(script.main, files) == 0
    text = capsys.readouterr().out
    assert "### fake, forward, float32, 2 threads: summary" in text
    assert "fake d: too noisy" in text
    assert any(line.startswith("| a ") and "1.5" in line for line in text.splitlines())
    pytest.importorskip("matplotlib")
    picture = tmp_path / "roofline.png"
    assert run_script(script.main, [*files, "--roofline", str(picture)]) == 0
    assert picture.is_file()


@pytest.mark.usefixtures("scripts")
def test_memory_script() -> None:
    import memory

    row = memory.Row("mul_add", "1000000-elements", "forward", 1, "torch ops")
    found = memory.in_child(row)
    assert found.reason == ""
    assert found.mebibytes > 2.0  # the product alpha * a, of 4 MB
    back = memory.in_child(dataclasses.replace(row, direction="forward+backward"))
    assert back.mebibytes is None  # the composition gives no gradients there
    ours = dataclasses.replace(row, direction="forward+backward", contender=OURS)
    assert memory.in_child(ours).mebibytes < 4.0 + 1.0  # the gradient of a is counted as an output
    assert memory.in_child(dataclasses.replace(row, contender="nobody")).mebibytes is None


@pytest.mark.usefixtures("scripts")
@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
def test_hotspots_script() -> None:
    import hotspots

    try:
        found = hotspots.shares("1x1-256@16", threads=1, back=False, seconds=0.5)
    except hotspots.Failure as error:
        pytest.skip(str(error))  # a container may forbid it
    assert found["multiply_rows"] > 0.1
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.usefixtures("scripts", "quiet")
def test_models_script(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    if not hasattr(custom_ops, "convert"):
        pytest.skip("custom_ops.convert is not there")
    import models

    given = list(models.contests([1], threads=1, train=2, size=64, folder=tmp_path))
    assert [one.direction for one in given] == ["forward", "training step"]
    for one in given:
        record = compete(one, dataclasses.replace(ANY_MACHINE, rounds=1))
        assert isinstance(record, Record)
        assert not set(record.absent) - {"DeformConv of ONNX Runtime"}


def test_tables_say_what_is_missing(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    report.records[0].absent["peer"] = "no such kernel"
    Console(width=200).print(shown(report))
    text = capsys.readouterr().out
    assert "peer is missing in 1 cases: no such kernel" in text
    assert "fake d: too noisy" in text
