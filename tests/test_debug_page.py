"""The page of a comparison, in an HTML parser and in a browser; the picture; the short form."""

import html.parser
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from custom_ops.debug import Comparison, Fault, Unmatched, Value
from custom_ops.debug._metrics import detail, measure

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
EVIL = "</script><img src=http://somewhere><!--"


def value(i: int, error: float = 0.0, **more: Any) -> Value:
    expected = np.linspace(1, 2, 24, dtype=np.float32).reshape(2, 3, 4)
    actual = expected.copy()
    actual[1, 2, 3] += np.float32(error)
    return Value(
        name=f"v{i}",
        node=f"node_{i}",
        op_type=("Conv", "Relu", "Add")[i % 3],
        nodes=(f"node_{i}",),
        module=(f"layers.{i // 50}.{i % 50}",),
        partner="aten.convolution",
        source="models/net.py:12",
        shape=expected.shape,
        dtype="float32",
        metrics=measure(expected, actual),
        arriving=measure(expected, actual + np.float32(1e-4)),
        limit=1e-5,
        limit_by="rounding",
        details=detail(expected, actual) if error > 1e-5 else None,
        **more,
    )


def comparison(count: int) -> Comparison:
    errors = {count // 2: 0.25, count // 2 + 1: float("nan"), 3: 8e-6}
    values = tuple(value(i, errors.get(i, 0.0)) for i in range(count))
    values = (replace(values[0], name=EVIL, module=()), *values[1:])
    faults = [Fault(**vars(each), difference="attribute alpha") for each in values if not each.ok]
    worse = replace(value(count, 0.5), name="y")
    return Comparison(
        values=values,
        faults=(*faults, Fault(**vars(worse), kind="optimization")),
        outputs=(worse,),
        unmatched=(Unmatched("reference", "aten.add", "add", "layers", "has no like"),),
        notes=("a note",),
        model="net",
        versions=(("torch", "2.13"),),
    )


class Page(html.parser.HTMLParser):
    """What is in a page: texts, the JSON by id, and whether it needs something else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.json: dict[str, Any] = {}
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        self._script = dict(attrs).get("id") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.json[self._script] = json.loads(data)
        elif data.strip():
            self.texts.append(data.strip())


def test_the_page_holds_all_and_needs_nothing(tmp_path: Path) -> None:
    found = comparison(60)
    found.to_html(tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text("utf-8")
    page = Page(text)
    assert page.links == []
    assert "img" not in page.tags
    assert "url(" not in text
    assert "@import" not in text
    data = page.json["data"]
    assert [each["name"] for each in data["values"]] == [v.name for v in found.values] + ["y"]
    assert data["drawn"] == 60
    levels = {each["name"]: each["level"] for each in data["values"]}
    assert (levels["v3"], levels["v30"], levels["v31"], levels["v5"]) == (
        *("near", "fault", "fault"),
        "exact",
    )
    assert data["values"][30]["difference"] == "attribute alpha"
    assert set(page.json) == {"data", "details-30", "details-60"} | (
        {"details-31"} if found.values[31].details else set()
    )
    assert page.json["details-30"]["worst"][0]["index"] == [1, 2, 3]
    for wanted in (
        "node_30",
        "attribute alpha",
        "a note",
        "torch 2.13",
        "1 of the reference: has no like",
    ):
        assert wanted in page.texts
    assert any("only in the session asked for: optimization" in each for each in page.texts)


def test_the_page_overwrites_nothing_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"to_html: the page must be a new file, got .*p\.html"):
        comparison(4).to_html(path)
    assert path.read_text() == "mine"
    comparison(4).to_html(path, force=True)
    assert "node_2" in path.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_to_show(tmp_path: Path) -> None:
    empty = Comparison(values=(), faults=())
    empty.to_html(tmp_path / "p.html")
    assert "✓ Within limits" in Page((tmp_path / "p.html").read_text("utf-8")).texts
    assert "0 values compared" in empty._repr_html_()
    replace(empty, comparable=False).to_html(tmp_path / "q.html")
    assert "✕ Not comparable" in Page((tmp_path / "q.html").read_text("utf-8")).texts


def test_the_short_form_is_of_itself() -> None:
    page = Page(comparison(60)._repr_html_())
    assert page.links == []
    assert "script" not in page.tags
    assert {"svg", "ol"} <= set(page.tags)
    assert "node_30" in page.texts


def test_the_picture() -> None:
    pytest.importorskip("matplotlib")
    found = comparison(60)
    (axes,) = found.plot().axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"inherited", "limit", "introduced", "above its limit"}
    assert list(lines["above its limit"].get_xdata()) == [30, 31]
    assert lines["introduced"].get_ydata()[30] == 0.25
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert {"0", "inf"} <= set(labels)
    assert axes.get_yscale() == "log"


def test_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot needs matplotlib.*'custom-ops\[plot\]'"):
        comparison(4).plot()


# In a browser


def run(path: Path, script: str, width: int = 1200) -> Any:
    """Runs a script in the page, in a frame of a width, and returns what it gives.

    Windows of Chromium have a least width, frames have none.
    """
    assert BROWSER is not None
    text = path.read_text("utf-8").replace(
        "<main>", "<script>errors = []; onerror = e => errors.push(e)</script><main>", 1
    )
    path.write_text(text, "utf-8")
    frame = path.parent / "frame.html"
    frame.write_text(f"""<iframe src="{path.name}" width="{width}" height="900"></iframe><p></p>
        <script>onload = async () => {{
          const page = document.querySelector("iframe").contentWindow, root = page.document;
          const find = each => root.querySelector(each);
          const rows = () => [...root.querySelectorAll("#rows tbody tr[aria-rowindex]")];
          let found;
          try {{ found = await (async () => {{ {script} }})(); }} catch (e) {{ found = String(e); }}
          document.querySelector("p").textContent = encodeURIComponent(
            JSON.stringify([found, page.errors])); }}</script>""")
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=20000", "--enable-logging=stderr"),
            *("--allow-file-access-from-files", f"--user-data-dir={path.parent / 'profile'}"),
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "CONSOLE" not in done.stderr
    (said,) = re.findall("<p>(.*?)</p>", done.stdout)
    found, errors = json.loads(unquote(said))
    assert errors == []
    return found


@pytest.fixture
def large(tmp_path: Path) -> Path:
    comparison(5000).to_html(tmp_path / "p.html")
    return tmp_path / "p.html"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_table_is_searched_sorted_and_drawn_on_demand(large: Path) -> None:
    found = run(
        large,
        """
        const first = rows().length;
        const bottom = () => rows().at(-1).querySelector("button").textContent;
        find("#rows").scrollTop = 1e9;
        find("#rows").dispatchEvent(new page.Event("scroll"));  // not at the next frame, but now
        const last = bottom();
        find("#search").value = "node_4321 conv"; find("#search").oninput();
        const searched = rows().map(row => row.querySelector("button").textContent);
        find("#search").value = ""; find("#search").oninput();
        find('th[data-column="introduced"] button').click();
        const largest = rows().slice(0, 4).map(row => row.querySelector("button").textContent);
        const sort = find('th[data-column="introduced"]').getAttribute("aria-sort");
        find("#levels").value = "fault"; find("#levels").onchange();
        return { first, last, searched, largest, sort, faults: rows().length,
          injected: root.querySelectorAll("img").length, count: find("#count").textContent };
        """,
    )
    assert found["first"] < 100
    assert found["last"] == "y"
    assert found["searched"] == ["v4321"]
    assert found["largest"] == ["v2501", "y", "v2500", "v3"]
    assert found["sort"] == "descending"
    assert (found["faults"], found["count"]) == (3, "3 of 5001")
    assert found["injected"] == 0


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_click_shows_a_value(large: Path) -> None:
    found = run(
        large,
        """
        find(".faults button").click();
        const texts = [...root.querySelectorAll("dialog h2, dialog h3")].map(e => e.textContent);
        const worst = [...root.querySelectorAll("dialog table")].at(-1).innerText;
        const drawn = ["draw", "heat"].map(name => root.querySelectorAll(`.${name} rect`).length);
        find('dialog [data-step="1"]').click();
        const next = find("#value-name").textContent;
        find("dialog .close").click();
        return { texts, worst, drawn, next, open: find("dialog").open };
        """,
    )
    assert found["texts"] == [
        *("✕ v2500", "Metrics", "More numbers", "Histogram of the differences"),
        *("Where the differences are", "Worst elements"),
    ]
    assert "[1, 2, 3]" in found["worst"]
    assert found["drawn"] == [40, 12]
    assert (found["next"], found["open"]) == ("✕ v2501", False)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_by_keyboard_and_by_module(large: Path) -> None:
    found = run(
        large,
        """
        const press = (at, key) => at.dispatchEvent(new page.KeyboardEvent("keydown",
          { key, bubbles: true, cancelable: true }));
        const plot = find(".plot");
        press(plot, "End"); press(plot, "ArrowLeft");
        const reading = find("#reading").textContent;
        press(plot, "Enter");
        const name = find("#value-name").textContent;
        find("dialog .close").click();
        const tree = [...root.querySelectorAll("#tree summary b")].map(e => e.textContent);
        find('#tree [aria-label="values of layers.50"]').click();
        const inModule = [find("#count").textContent, find("#module").textContent];
        const button = rows()[0].querySelector("button");
        button.focus(); press(button, "ArrowDown");
        return { reading, name, tree, inModule, focused: root.activeElement.textContent };
        """,
    )
    assert found["reading"].startswith("○ 4999. v4998 (Conv): introduced 0")
    assert found["name"] == "○ v4998"
    assert found["tree"][:2] == ["the whole model", "layers"]
    assert "50" in found["tree"]
    assert found["inModule"] == ["50 of 5001", "module layers.50 ✕"]
    assert found["focused"] == "v2501"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [320, 1200])
def test_the_page_fits(width: int, tmp_path: Path) -> None:
    found = comparison(60)
    long = replace(found.values[5], name="a_very_long_name_" * 20, module=("layers" * 60,))
    path = tmp_path / "p.html"
    replace(found, values=(*found.values[:5], long, *found.values[6:])).to_html(path)
    scrolled, shown, dialog, inside = run(
        path,
        """
        const wide = [root.documentElement.scrollWidth, root.documentElement.clientWidth];
        page.open(5);
        const dialog = find("dialog");
        return [...wide, dialog.scrollWidth, dialog.clientWidth];
        """,
        width,
    )
    assert scrolled <= shown
    assert dialog <= inside
