"""The command line: every command for real, its exit codes, and what it writes where."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import custom_ops.demo
import custom_ops.onnx
from custom_ops.cli import execute
from custom_ops.onnx._exporters import EXPORTERS
from custom_ops.onnx._lowering import LOWERINGS
from custom_ops.onnx._session import KERNELS
from custom_ops.ops._registry import ops as registered

COMMANDS = (
    "demo",
    "export",
    "run",
    "verify",
    "compare",
    "inspect",
    "doctor",
    "extract",
    "fix",
    "convert",
    "bench",
    "info",
)
NETS = """
import torch, custom_ops

class Net(torch.nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.predict = torch.nn.Conv2d(3, 18, 3, padding=1)
        self.sample = custom_ops.DeformConv2d(3, 4, 3, padding=1)
        self.add = custom_ops.MulAdd(alpha=3.0)

    def forward(self, x):
        y = self.sample(x, self.predict(x))
        return self.add(y, y.relu())

class Sorted(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x)

def full():
    print("loading")
    return Net(), (torch.randn(2, 3, 8, 8),), ({0: "N", 2: "H", 3: "W"},)

def other():
    return Net(seed=1), torch.randn(2, 3, 8, 8)

def number():
    return 3

def broken():
    raise RuntimeError("no weights")

instance = Net()
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        return self.err.strip().splitlines()[-1]


def call(*arguments: str) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = execute(arguments)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("exported")
    (made / "nets.py").write_text(NETS)
    outcome = call("export", f"{made / 'nets.py'}:full", str(made / "full.onnx"))
    assert outcome.code == 0, outcome.err
    return made / "full.onnx"


# demo


@dataclasses.dataclass(frozen=True)
class Demo:
    outcome: Outcome
    result: custom_ops.demo.Result
    folder: Path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    made = tmp_path_factory.mktemp("demo") / "new" / "folder"
    results: list[custom_ops.demo.Result] = []
    run = custom_ops.demo.run

    def remember(*args: Any) -> custom_ops.demo.Result:
        results.append(run(*args))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(custom_ops.demo, "run", remember)
        outcome = call("demo", "--output", str(made))
    return Demo(outcome, results[0], made)


def test_demo_agrees_in_every_way(demo: Demo) -> None:
    assert demo.outcome.code == 0, demo.outcome.out
    rows = demo.result.comparison.rows
    assert {(row.lowering, row.exporter) for row in rows} == {
        (lowering, exporter) for lowering in LOWERINGS for exporter in EXPORTERS
    }
    for exporter in EXPORTERS:
        ran = {(row.lowering, row.kernels): row for row in rows if row.exporter == exporter}
        for kernels in KERNELS:
            assert ran["portable", kernels].verdict == "equal"
        assert ran["custom", "native"].verdict == "equal"
        assert ran["custom", "python"].verdict == "equal"
        assert ran["custom", "none"].verdict == "needs the library"
        assert ran["decomposed", None].verdict == "equal"
        assert ran["native", None].verdict in ("equal", "refused")
        assert (ran["native", None].verdict == "equal") != bool(ran["native", None].note)
    for row in rows:
        timed = row.milliseconds is not None and row.milliseconds > 0
        assert timed == (row.verdict == "equal")


def test_demo_learns_and_its_twin_does_not(demo: Demo) -> None:
    training = demo.result.training
    assert training.loss.fell
    assert training.loss.unseen < 0.5 * training.ordinary.unseen
    assert training.loss.unseen < 0.5 * training.untouched


def test_demo_prints_the_table_and_where_the_files_are(demo: Demo) -> None:
    text = demo.outcome.out
    assert re.search(r"Loss 0\.\d+ at first, 0\.\d+ at last: it fell", text)
    for row in demo.result.comparison.rows:
        assert re.search(rf"{row.lowering} .*{row.exporter} .*{row.verdict}", text)
    assert "1 thread each" in " ".join(text.split())
    assert str(demo.folder / "index.html") in text.replace("\n", "")
    assert "Training ..." in demo.outcome.err


def test_demo_writes_models_and_a_page_that_needs_no_other_file(demo: Demo) -> None:
    for file in demo.result.comparison.files:
        assert file.parent == demo.folder / "models"
        onnx.checker.check_model(str(file))
    page = (demo.folder / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page  # the browser sees to it too
    page = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    references = re.findall(r"(?:src|href|url|@import)\s*[=(]?\s*[\"']?([^\"')\s>]+)", page)
    assert references
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert "http" not in page
    assert "$" not in page
    assert page.count('class="learnt"') == page.count('class="true"') == 3
    assert page.count("<tr") == 2 + len(demo.result.comparison.rows)


def test_demo_as_json(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_ops.demo, "run", lambda *_: demo.result)
    outcome = call("demo", "--json")
    result = json.loads(outcome.out)
    assert (outcome.code, result["ok"]) == (0, True)
    assert result["loss"]["last"] < result["loss"]["first"]
    assert len(result["rows"]) == len(demo.result.comparison.rows)
    assert all(Path(file).is_file() for file in (*result["models"], result["page"]))


@pytest.mark.parametrize("verdict", ["differs", "fails", "refused"])
def test_demo_fails_where_a_way_does(
    verdict: str, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = demo.result.comparison
    row = dataclasses.replace(comparison.rows[0], verdict=verdict, note="made up")
    rows = (row, *comparison.rows[1:])
    result = dataclasses.replace(demo.result, comparison=dataclasses.replace(comparison, rows=rows))
    monkeypatch.setattr(custom_ops.demo, "run", lambda *_: result)
    outcome = call("demo")
    assert outcome.code == 1
    assert "NOT as it should be" in outcome.out
    assert f"portable dynamo native {verdict}: made up" in outcome.out


def test_demo_fails_where_the_loss_does_not_fall(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = dataclasses.replace(demo.result.training.loss, steps=(0.1,) * 20)
    training = dataclasses.replace(demo.result.training, loss=loss)
    result = dataclasses.replace(demo.result, training=training)
    monkeypatch.setattr(custom_ops.demo, "run", lambda *_: result)
    outcome = call("demo")
    assert outcome.code == 1
    assert "it did NOT fall" in outcome.out


# export, verify, run


def test_export_of_a_factory(exported: Path) -> None:
    model = onnx.load(exported)
    assert [given.name for given in model.graph.input] == ["x"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", 3, "H", "W"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_export_of_an_instance_with_options(exporter: str, folder: Path) -> None:
    outcome = call(
        *("export", "nets:instance", "new/out.onnx", "--args", "2x3x8x8", "--json"),
        *("--dynamic", "x:0=batch", "--exporter", exporter, "--lowering", "decomposed"),
        *("--opset", "18", "--target", "onnxruntime==1.17"),
    )
    result = json.loads(outcome.out)
    assert outcome.code == 0
    assert result["ok"]
    assert result["path"] == "new/out.onnx"
    assert len(result["checks"]) > 1
    assert all(check["passed"] for check in result["checks"])
    model = onnx.load(folder / "new" / "out.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_export_without_verifying() -> None:
    outcome = call("export", "nets:full", "out.onnx", "--no-verify", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["checks"] is None
    assert "loading" in outcome.err  # what a factory prints stays away from the JSON


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--opset", "99"), "opset_version must be"),
        (("--lowering", "native", "--target", "onnxruntime==1.20"), "onnxruntime has a CPU kernel"),
        (("--target", "onnxruntime==1.3"), "must be 1.17 or later"),
    ],
)
def test_export_refuses_and_leaves_no_file(
    arguments: Sequence[str], sentence: str, folder: Path
) -> None:
    outcome = call("export", "nets:full", "out.onnx", *arguments, "--json")
    assert outcome.code == 1
    assert sentence in outcome.sentence
    assert json.loads(outcome.out) == {"ok": False, "error": outcome.sentence}
    assert not (folder / "out.onnx").exists()
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_export_says_what_the_exporter_does_not_take(exporter: str, folder: Path) -> None:
    arguments = ("export", "nets:Sorted", "out.onnx", "--args", "3x3", "--exporter", exporter)
    outcome = call(*arguments)
    assert outcome.code == 1
    assert "linalg" in outcome.sentence
    assert "Traceback" not in outcome.err
    assert not (folder / "out.onnx").exists()
    assert "Traceback" in call("--traceback", *arguments).err


@pytest.mark.parametrize("kernels", KERNELS)
def test_verify(exported: Path, kernels: str) -> None:
    outcome = call("verify", str(exported), "nets:full", "--kernels", kernels)
    assert outcome.code == 0
    assert outcome.out.count("equal (largest difference") == 3
    assert "[3, 3, 9, 9]" in outcome.out  # the sizes left open: one more, and doubled
    assert "[4, 3, 16, 16]" in outcome.out


def test_verify_other_weights(exported: Path) -> None:
    outcome = call("verify", str(exported), "nets:other", "--json")
    result = json.loads(outcome.out)
    assert outcome.code == 1
    assert result["ok"] is False
    assert "off by" in result["checks"][0]["note"]


def test_verify_a_tampered_file(exported: Path, folder: Path) -> None:
    model = onnx.load(exported)
    weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "tampered.onnx")
    outcome = call("verify", "tampered.onnx", "nets:full")
    assert outcome.code == 1
    assert "DIFFERS, output 0 is off by" in outcome.out


def test_verify_a_file_that_does_not_load(folder: Path) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "other": 1]>
        g (float[N] x) => (float[N] y) { y = other.Op(x) }""")
    onnx.save(model, "other op.onnx")
    outcome = call("verify", "other op.onnx", "nets:full")
    assert outcome.code == 1
    assert "other op.onnx must load with --kernels native" in outcome.sentence
    assert outcome.sentence.endswith("; see custom-ops doctor 'other op.onnx'")


@pytest.mark.parametrize(
    ("content", "got"), [(b"", "nothing in it"), (b"not a model", "what does not parse")]
)
@pytest.mark.parametrize("command", ["run", "verify"])
def test_what_is_no_model(command: str, content: bytes, got: str, folder: Path) -> None:
    (folder / "junk.onnx").write_bytes(content)
    outcome = call(command, "junk.onnx", *["nets:full"] * (command == "verify"))
    assert outcome.code == 2
    assert f"junk.onnx must hold an ONNX model, got {got}" in outcome.sentence


def test_sizes_that_a_model_does_not_take(folder: Path) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1, 3, 9, 9] x) => (float[1, 3, 9, 9] y) { y = Neg(x) }""")
    onnx.save(model, "fixed.onnx")
    outcome = call("run", "fixed.onnx", "--shape", "x=2x3x9x8")
    assert "index: 0 Got: 2 Expected: 1, index: 3 Got: 8 Expected: 9; give" in outcome.sentence
    outcome = call("verify", "fixed.onnx", "nets:other")
    assert outcome.code == 1
    assert "DIFFERS, the model raises" in outcome.out
    assert "nan" not in outcome.out


def test_doctor_says_which_command_mends_and_warns_once(folder: Path) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N] x) => (float[N] y) { y = com.microsoft.Gelu(x) }""")
    onnx.save(model, "gelu.onnx")
    outcome = call("doctor", "gelu.onnx", "--target", "onnxruntime==9.0")
    command = "custom-ops fix gelu.onnx --output FIXED.onnx --target onnxruntime==9.0"
    assert f"What is fixable is mended by: {command}" in outcome.out
    assert outcome.err.count("warning: target") == 1
    assert call(*command.split()[1:]).code == 0
    assert [each.version for each in onnx.load("FIXED.onnx").opset_import] == [17, 1]
    outcome = call("doctor", "FIXED.onnx")
    assert "nothing" in outcome.out
    assert "custom-ops fix" not in outcome.out


def test_fix_says_where_the_weights_are(exported: Path, folder: Path) -> None:
    outcome = call("fix", str(exported), "--output", "out.onnx", "--external", "--no-verify")
    sizes = [
        f"{name} ({Path(name).stat().st_size:,} bytes)" for name in os.listdir() if "out" in name
    ]
    assert outcome.out.startswith(f"{' and '.join(sorted(sizes))} for onnxruntime==")
    assert len(sizes) == 2


def test_the_page_of_inspect_is_no_folder(exported: Path, folder: Path) -> None:
    outcome = call("inspect", str(exported), "--html", ".", "--force")
    assert outcome.code == 1
    assert "the page must be a file, got '.', a folder; name a file in it" in outcome.sentence


@pytest.mark.parametrize("kernels", KERNELS)
def test_run(exported: Path, kernels: str, folder: Path) -> None:
    np.save(folder / "x.npy", np.ones((3, 3, 5, 7), np.float32))
    arguments = ("run", str(exported), "--kernels", kernels, "--output", "out", "--json")
    outcome = call(*arguments, "--input", "x=x.npy")
    result = json.loads(outcome.out)
    assert outcome.code == 0
    assert result["inputs"]["x"]["mean"] == 1.0
    assert result["milliseconds"] > 0
    ((name, output),) = result["outputs"].items()
    assert (output["dtype"], output["shape"]) == ("float32", [3, 4, 5, 7])
    array = np.load(folder / output["file"])
    assert output["max"] == array.max()
    session = custom_ops.onnx.session(exported)
    (expected,) = session.run([name], {"x": np.ones((3, 3, 5, 7), np.float32)})
    np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("command", [("run",), ("verify", "nets:full")])
def test_a_library_of_the_session(command: tuple[str, ...], folder: Path) -> None:
    assert call("export", "nets:full", "custom.onnx", "--lowering", "custom").code == 0
    first, *rest = command
    arguments = (first, "custom.onnx", *rest, "--kernels", "none")
    assert call(*arguments).code == 1
    outcome = call(*arguments, "--library", custom_ops.get_library_path())
    assert outcome.code == 0, outcome.err
    outcome = call(*arguments, "--library", "nowhere.so")
    assert outcome.code == 1
    assert "nowhere.so" in outcome.sentence


def test_run_draws_what_is_not_given(exported: Path) -> None:
    drawn = json.loads(call("run", str(exported), "--json").out)
    assert drawn["inputs"]["x"]["shape"] == [1, 3, 16, 16]
    assert drawn["inputs"]["x"]["std"] == pytest.approx(1.0, abs=0.2)
    shaped = call("run", str(exported), "--shape", "x=2x3x4x4")
    assert shaped.code == 0
    assert "2x4x4x4" in shaped.out


def test_run_draws_each_type_and_shares_sizes_of_one_name(folder: Path) -> None:
    text = """<ir_version: 9, opset_import: ["": 18]>
        g (int64[N, 2] a, bool[N] b, float16[N, M] c, double s, bfloat16[3] d) =>
          (int64[N, 2] p, bool[N] q, float16[N, M] r, double t, bfloat16[3] u) {
          p = Identity(a) q = Identity(b) r = Identity(c) t = Identity(s) u = Identity(d) }"""
    onnx.save(onnx.parser.parse_model(text), folder / "types.onnx")
    outcome = call("run", "types.onnx", "--shape", "a=5x2", "--json")
    assert outcome.code == 0, outcome.err
    outputs = json.loads(outcome.out)["outputs"]
    assert [(each["dtype"], each["shape"]) for each in outputs.values()] == [
        ("int64", [5, 2]),
        ("bool", [5]),
        ("float16", [5, 16]),
        ("float64", []),
        ("bfloat16", [3]),
    ]


def test_run_says_what_the_model_refuses(exported: Path) -> None:
    outcome = call("run", str(exported), "--shape", "x=1x4x8x8")
    assert outcome.code == 1
    assert "must run on x=1x4x8x8" in outcome.sentence


# extract


def test_extract_a_module_with_samples(exported: Path, folder: Path) -> None:
    arguments = ("extract", str(exported), "out/sample.onnx", "--module", "sample", "--json")
    other = call(*arguments, "--model", "nets:other")
    assert (other.code, json.loads(other.out)["sample"]["passed"]) == (1, False)
    outcome = call(*arguments, "--model", "nets:full", "--samples", "arrays", "--force")
    result = json.loads(outcome.out)
    assert outcome.code == 0, outcome.err
    assert result["ok"]
    assert result["sample"]["passed"]
    assert (result["module"], len(result["inputs"]), len(result["outputs"])) == ("sample", 2, 1)
    session = custom_ops.onnx.session(folder / "out" / "sample.onnx")
    feeds = {name: np.load(file) for name, file in result["samples"]["inputs"].items()}
    ((name, file),) = result["samples"]["outputs"].items()
    np.testing.assert_allclose(session.run([name], feeds)[0], np.load(file), rtol=1e-4, atol=1e-5)


def test_extract_by_names_and_its_errors(exported: Path, folder: Path) -> None:
    outcome = call("extract", str(exported), "head.onnx", "--outputs", "conv2d")
    assert outcome.code == 0, outcome.err
    assert "outputs  conv2d" in outcome.out
    again = call("extract", str(exported), "head.onnx", "--outputs", "conv2d")
    assert (again.code, "which exists" in again.sentence) == (1, True)
    (folder / "junk.onnx").write_bytes(b"junk")
    assert call("extract", "junk.onnx", "o.onnx", "--inputs", "x").code == 2
    assert not (folder / "o.onnx").exists()


# info, help, wrong usage


def test_info() -> None:
    outcome = call("info")
    assert outcome.code == 0
    versions = ("custom_ops", "torch", "onnxruntime", "python")
    for name in (*versions, "platform", "instruction sets", "the kernels use"):
        assert re.search(rf"^{name} +\S", outcome.out, re.MULTILINE)
    assert custom_ops.get_library_path() in outcome.out
    result = json.loads(call("info", "--json").out)
    assert result["ok"]
    assert set(result["ops"]) == set(registered())
    assert {library["state"] for library in result["libraries"].values()} == {"loads"}
    assert result["kernels"]["in_use"] in result["kernels"]["supported"]


def test_info_says_what_is_wrong_with_the_instruction_set() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from custom_ops.cli import main; main()", "info"],
        env={**os.environ, "CUSTOM_OPS_ISA": "mmx"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(
        r"^the kernels use +custom_ops: CUSTOM_OPS_ISA must be one that .*, got mmx; unset it",
        done.stdout,
        re.MULTILINE,
    )


def test_version() -> None:
    assert call("--version") == Outcome(0, f"custom-ops {custom_ops.__version__}\n", "")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_states_the_exit_codes(command: str) -> None:
    outcome = call(*filter(None, [command]), "--help")
    text = " ".join(outcome.out.split())
    assert outcome.code == 0
    assert "Exit codes: 0 all is well; 1 a check failed" in text


def test_help_names_every_choice() -> None:
    for command, choices in (("export", (*LOWERINGS, *EXPORTERS)), ("run", KERNELS)):
        text = call(command, "--help").out
        assert all(re.search(rf"\b{choice}\b", text) for choice in choices)


# completion


def completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> list[str]:
    """What bash is told to offer for the last of the words."""
    monkeypatch.setenv("_CUSTOM_OPS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit) as ended:
        execute([])
    assert ended.value.code == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("custom-ops ex", ["export", "extract"]),
        ("custom-ops doctor --tar", ["--target"]),
        (
            "custom-ops doctor --target onnx",
            [f"onnxruntime=={r}" for r in custom_ops.onnx.RELEASES],
        ),
        ("custom-ops export nets:full out.onnx --lowering ", list(LOWERINGS)),
        ("custom-ops convert in.onnx --to c", ["custom"]),
        ("custom-ops convert in.onnx --from mm", ["mmcv", "mmdeploy"]),
        ("custom-ops export --exporter t", ["torchscript"]),
        ("custom-ops run in.onnx --kernels n", ["native", "none"]),
        ("custom-ops bench --op ", list(registered())),
        ("custom-ops bench --dtype b", ["bfloat16"]),
        # Nothing of ours: the shell offers its files then.
        ("custom-ops inspect i", []),
        ("custom-ops convert in.onnx --output o", []),
    ],
)
def test_the_shell_completes(
    words: str,
    offered: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert completed(monkeypatch, capsys, words) == offered


def test_every_command_is_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(monkeypatch, capsys, "custom-ops ") == list(COMMANDS)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_by_the_script_of_the_command(folder: Path) -> None:
    command = folder / "custom-ops"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom custom_ops.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    script = """
        eval "$(_CUSTOM_OPS_COMPLETE=source_bash custom-ops)"
        COMP_WORDS=(custom-ops export --exporter t) COMP_CWORD=3
        $(complete -p custom-ops | sed 's/.*-F \\([^ ]*\\).*/\\1/') custom-ops
        echo "${COMPREPLY[@]}"; complete -p custom-ops"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    offered, how = done.stdout.splitlines()
    assert offered == "torchscript"
    assert "-o default" in how  # files, where there is nothing of ours


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing",), "No such command 'nothing'"),
        (("export",), "Missing argument"),
        (("export", "nets:full", "o.onnx", "--nothing"), "--nothing"),
        (("export", "nets:full", "o.onnx", "--opset", "x"), "--opset"),
        (("export", "nets:full", "o.onnx", "--lowering", "x"), "--lowering must be one of"),
        (("export", "nets:full", "o.onnx", "--exporter", "x"), "--exporter must be one of"),
        (("export", "nets:full", "o.onnx", "--dynamic", "x0=N"), "--dynamic must be like"),
        (("export", "nets:full", "o.onnx", "--dynamic", "z:0=N"), "--dynamic must name an input"),
        (("export", "nets:full", "o.onnx", "--args", "2xN"), "--args must be sizes"),
        (("export", "nets:full", "o.onnx", "--args", "2:float7"), "--args must have a dtype"),
        (("export", "nets:instance", "o.onnx"), "--args must be given"),
        (("export", "nets:missing", "o.onnx"), "nets must have missing"),
        (("export", "nets:number", "o.onnx"), "must give a torch module"),
        (("export", "nets:broken", "o.onnx"), "no weights"),
        (("export", "nowhere:x", "o.onnx"), "nowhere must be importable"),
        (("export", "nowhere.py:x", "o.onnx"), "nowhere.py"),
        (("export", "nets", "o.onnx"), "two names with a colon between"),
        (("verify", "nowhere.onnx", "nets:full"), "nowhere.onnx"),
        (("run", "nowhere.onnx"), "nowhere.onnx"),
        (("run", "{model}", "--kernels", "x"), "--kernels must be one of"),
        (("run", "{model}", "--shape", "z=1"), "--shape must name an input (x)"),
        (("run", "{model}", "--shape", "x"), "--shape must be like"),
        (("run", "{model}", "--shape", "x=1,2"), "--shape must be sizes"),
        (("run", "{model}", "--input", "x=nowhere.npy"), "--input must be a .npy file"),
        (
            ("extract", "{model}", "o.onnx", "--module", "add", "--samples", "d"),
            "come with --model",
        ),
        (("extract", "{model}", "o.onnx", "--module", "add", "--call", "-1"), "--call"),
        (("demo", "--threads", "0"), "--threads"),
        (("bench", "--op", "x"), "--op must be one of"),
        (("bench", "--case", "x"), "--case must fit one of"),
        (("bench", "--dtype", "x"), "--dtype must be one of"),
    ],
)
def test_wrong_usage(arguments: Sequence[str], sentence: str, exported: Path) -> None:
    outcome = call(*(argument.format(model=exported) for argument in arguments))
    assert outcome.code == 2
    assert sentence in outcome.sentence
    assert "Traceback" not in outcome.err
    assert outcome.out.replace("loading\n", "") == ""


def test_the_entry_point_starts_without_onnx(folder: Path) -> None:
    script = (
        "import sys; from custom_ops.cli import main; sys.argv[1:] = ['export', '--help']\n"
        "try: main()\n"
        "finally: print('onnx' in sys.modules or 'onnxruntime' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "False")
    failed = subprocess.run(
        [sys.executable, "-c", script.replace("--help", "--nothing")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
