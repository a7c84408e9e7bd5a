"""What inspect says of models, its page, and its command; external data stays where it is."""

import html.parser
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_cli import call
from test_onnx_reading import nested, relu, with_external
from work import calls

import custom_ops.onnx
from custom_ops.onnx import Inspection, UnreadableModel
from custom_ops.onnx._exporters import EXPORTERS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU())
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x).mean((2, 3))
        return self.head(y) - (y.unsqueeze(1) * self.head.weight).sum(-1)


@pytest.fixture(scope="module", params=EXPORTERS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "net.onnx"
    custom_ops.onnx.export(
        Net().eval(), torch.ones(1, 3, 4, 4), path, exporter=request.param, verify=False
    )
    return path


def everything() -> onnx.ModelProto:
    """If with a Loop in it, a function that calls another, sparse, text and optional values."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18, "mine": 1], producer_name: "me",
         producer_version: "2", doc_string: "all of it">
        g (float[N, 3] x, bool flag, seq(int64[2]) s, optional(float[?]) o, float[1] w, foo)
            => (float[N, 3] y)
            <float[1] w = {1}, string[2] words = {"ab", "cde"}> {
          a = mine.twice(x)
          y = If (flag) <
            then_branch = then () => (float[N, 3] b)
              <int64 n = {3}, float[1] inner = {5}> {
              yes = Constant <value = bool {1}> ()
              b = Loop (n, yes, a) <
                body = body (int64 i, bool c, float[N, 3] v) => (bool d, float[N, 3] z) {
                  d = Identity (c) z = Add (v, inner)
                }>
            },
            else_branch = other () => (float[N, 3] e) { e = Mul (a, w) }
          >
        }
        <domain: "mine", opset_import: ["": 18, "mine": 1]>
        twice (p) => (q) { q = mine.once(p) }
        <domain: "mine", opset_import: ["": 18]>
        once (p) => (q) { r = Add(p, p) q = Relu(r) }
    """)
    values = helper.make_tensor("sparse", TensorProto.DOUBLE, [2], [1.0, 2.0])
    indices = helper.make_tensor("sparse_indices", TensorProto.INT64, [2], [0, 5])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [9]))
    model.metadata_props.add(key="who", value="<b>me</b>")
    model.graph.input[-1].ClearField("type")
    return model


def test_everything_is_counted() -> None:
    found = custom_ops.onnx.inspect(everything())
    assert (found.ir_version, found.producer, found.doc) == (10, "me 2", "all of it")
    assert found.opsets == (("", 18), ("mine", 1))
    assert list(map(str, found.inputs)) == [
        "x: float32[N, 3]",
        "flag: bool[]",
        "s: sequence(int64)[2]",
        "o: optional(float32)[?]",
        "foo: type unknown",
    ]
    assert list(map(str, found.outputs)) == ["y: float32[N, 3]"]
    assert {str(op): (op.count, op.in_functions) for op in found.ops} == {
        "Add": (1, 1),
        "Identity": (1, 0),
        "Constant": (1, 0),
        "If": (1, 0),
        "Loop": (1, 0),
        "Mul": (1, 0),
        "Relu": (0, 1),
        "mine::once": (0, 1),
        "mine::twice": (1, 0),
    }
    assert found.subgraphs == 3
    assert [(f.name, f.nodes, f.calls) for f in found.functions] == [
        ("twice", 1, 1),
        ("once", 2, 1),
    ]
    assert found.metadata == {"who": "<b>me</b>"}
    within = {(node.within, node.op) for node in found.nodes}
    assert ("y/then_branch/b/body", "Identity") in within
    assert ("mine::once", "Relu") in within
    assert len(found.nodes) == 10


def test_weights_are_measured() -> None:
    held = custom_ops.onnx.inspect(everything()).weights
    assert (held.count, held.elements, held.unused) == (5, 7, 2)
    assert held.bytes_by_type == {"float64": 32, "float32": 8, "int64": 8, "string": 5}
    assert held.bytes == 53
    assert (held.external, held.files) == (0, ())


def test_external_data_is_not_read(tmp_path: Path) -> None:
    path = with_external(tmp_path, "../nowhere.data")
    held = custom_ops.onnx.inspect(path).weights
    assert (held.external, held.external_bytes, held.files) == (1, 24, ("../nowhere.data",))
    assert (held.bytes, held.unused) == (24, 1)


def test_modules(exported: Path) -> None:
    found = custom_ops.onnx.inspect(exported)
    modules = {module.path: module for module in found.modules}
    assert list(modules) == ["", "body", "body.0", "body.1", "head"]
    assert [m.depth for m in found.modules] == [0, 1, 2, 2, 1]
    assert (modules["body.0"].parent, modules["body"].parent, modules[""].parent) == (
        "body",
        "",
        None,
    )
    assert (modules["body.0"].ops, modules["body.0"].parameters) == ({"Conv": 1}, 16)
    assert (modules["body"].nodes, modules["body"].parameters) == (2, 16)
    assert modules["body"].bytes == 64
    assert modules[""].parameters == found.weights.elements
    # The weight of the head serves the model around it too.
    assert modules["head"].parameters == 2
    if modules["head"].type:
        assert modules["head"].type == "torch.nn.modules.linear.Linear"
        node = next(node for node in found.nodes if node.module == "body.1")
        assert node.source.startswith(f"{__file__}:")


def test_as_dict_is_json(exported: Path) -> None:
    for model in (exported, everything()):
        found = custom_ops.onnx.inspect(model)
        brief, full = (json.loads(json.dumps(found.as_dict(nodes=n))) for n in (False, True))
        assert brief["nodes"] == len(full["nodes"]) == len(found.nodes)
        assert full["opsets"][0] == {"domain": "", "version": found.opsets[0][1]}
        assert set(full["nodes"][0]) >= {"name", "op", "module", "source"}


def test_empty_models() -> None:
    found = custom_ops.onnx.inspect(onnx.ModelProto(graph=onnx.GraphProto()))
    assert (found.ops, found.nodes, found.modules, found.inputs) == ((), (), (), ())
    assert "not named" in str(found)


def test_many_nested_functions_are_counted_as_written() -> None:
    found = custom_ops.onnx.inspect(nested(60))
    assert len(found.nodes) == 1 + 2 * 60
    assert {function.calls for function in found.functions} == {1, 2}


def test_text_has_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    model = relu()
    model.producer_name = "\x1b[2J\x07evil\nline"
    model.graph.node[0].op_type = "\u202eRelu" * 500
    text = str(custom_ops.onnx.inspect(model))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert len(text) < 3000
    onnx.save(model, tmp_path / "m.onnx")
    assert "\x1b" not in call("inspect", str(tmp_path / "m.onnx"), "--graph").out


def chain(count: int) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    nodes, weights = [], []
    for i in range(count):
        name = f"/layers/layers.{i // 50}/add_{i % 50}"
        nodes.append(helper.make_node("Add", [f"v{i}", f"w{i}"], [f"v{i + 1}"], f"{name}/Add"))
        weights.append(numpy_helper.from_array(np.ones(1, np.float32), f"w{i}"))
    ends = [[value(f"v{i}", TensorProto.FLOAT, [1])] for i in (0, count)]
    return helper.make_model(helper.make_graph(nodes, "chain", *ends, weights))


def test_work_is_linear(tmp_path: Path) -> None:
    def look(model: onnx.ModelProto) -> None:
        found = custom_ops.onnx.inspect(model)
        found.write_html(tmp_path / "page.html", force=True)
        count = len(model.graph.node)
        assert len(found.nodes) == found.modules[0].nodes == found.weights.count == count

    few, many = chain(500), chain(4_000)
    look(few)
    assert calls(lambda: look(many)) < 9 * calls(lambda: look(few))


# The page


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("details", "summary", "div", "section", "span", "b", "script"):
            self.open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("details", "summary", "div", "section", "span", "b", "script"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page(found: Inspection, path: Path) -> Page:
    found.write_html(path)
    read = Page(path.read_text("utf-8"))
    assert not read.open
    assert not read.links  # it needs no other file
    assert "url(" not in path.read_text("utf-8")
    return read


def test_page_shows_the_modules(exported: Path, tmp_path: Path) -> None:
    texts = page(custom_ops.onnx.inspect(exported), tmp_path / "p.html").texts
    for wanted in ("net.onnx", "body", "head", "Conv", "1 node · 16 weights, 64 bytes"):
        assert wanted in texts


def test_page_of_everything_escapes_what_it_shows(tmp_path: Path) -> None:
    model = everything()
    model.graph.node[0].name = "<script>alert(1)</script>"
    model.doc_string = "</section><img src=http://somewhere>"
    model.functions[0].input[0] = model.functions[0].node[0].input[0] = "<i>"
    read = page(custom_ops.onnx.inspect(model), tmp_path / "p.html")
    assert "<b>me</b>" in read.texts
    assert "</section><img src=http://somewhere>" in read.texts
    assert any("do not tell which torch modules" in text for text in read.texts)


def test_page_overwrites_nothing_unless_told(exported: Path, tmp_path: Path) -> None:
    found, path = custom_ops.onnx.inspect(exported), tmp_path / "p.html"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"must be a new file, got .*p\.html"):
        found.write_html(path)
    assert path.read_text() == "mine"
    found.write_html(path, force=True)
    assert "net.onnx" in path.read_text("utf-8")
    before = exported.read_bytes()
    with pytest.raises(ValueError, match="must not be the model"):
        found.write_html(exported, force=True)
    assert exported.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_page_fits_in_a_browser(width: int, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    custom_ops.onnx.inspect(exported).write_html(path)
    frame = tmp_path / "frame.html"  # windows of Chromium have a least width, frames have none
    frame.write_text(f"""<iframe src="p.html" width="{width}" height="900"></iframe><p></p><script>
        onload = () => {{ const inner = document.querySelector("iframe").contentDocument;
          const root = inner.documentElement;
          document.querySelector("p").textContent = JSON.stringify([root.scrollWidth,
            root.clientWidth, inner.querySelectorAll("details").length,
            inner.querySelector("summary .name").innerText]); }}</script>""")
    assert BROWSER is not None
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"),
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = done.stdout.partition("<p>")[2].partition("</p>")[0]
    scrolled, shown, details, first = json.loads(found)
    assert scrolled <= shown  # nothing is wider than the page
    assert details == 2
    assert first.startswith("the whole model")


# The command


def test_command(exported: Path, tmp_path: Path) -> None:
    outcome = call("inspect", str(exported))
    assert outcome.code == 0, outcome.err
    for wanted in ("IR version", "x: float32[1, 3, 4, 4]", "Conv", "body.0", "head"):
        assert wanted in outcome.out
    assert "body.0" not in call("inspect", str(exported), "--depth", "1").out
    assert "--depth 2" in call("inspect", str(exported), "--depth", "1").out


def test_command_lists_the_graph(exported: Path) -> None:
    lines = call("inspect", str(exported), "--graph").out.splitlines()
    assert any("Conv" in line and "body.0" in line and "x" in line for line in lines)


def test_command_as_json(exported: Path, tmp_path: Path) -> None:
    outcome = call("inspect", str(exported), "--json")
    result = json.loads(outcome.out)
    assert (outcome.code, result["ok"], result["html"]) == (0, True, None)
    assert result["inputs"] == [{"name": "x", "type": "float32", "shape": [1, 3, 4, 4]}]
    path = str(tmp_path / "new" / "p.html")
    full = json.loads(call("inspect", str(exported), "--json", "--graph", "--html", path).out)
    assert len(full["nodes"]) == result["nodes"]
    assert (full["html"], Path(path).is_file()) == (path, True)
    refused = call("inspect", str(exported), "--html", path)
    assert (refused.code, "--force" in refused.sentence) == (1, True)
    assert call("inspect", str(exported), "--html", path, "--force").code == 0


@pytest.mark.parametrize("content", [b"", b"junk", relu().SerializeToString()[:9]])
def test_command_on_junk(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    outcome = call("inspect", str(path), "--html", str(tmp_path / "p.html"))
    assert outcome.code == 2
    assert "must hold an ONNX model" in outcome.sentence
    assert "Traceback" not in outcome.err
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]
    with pytest.raises(UnreadableModel):
        custom_ops.onnx.inspect(path)
