"""Every page of the docs as printed: code runs, commands end as said, links lead somewhere.

The blocks of a page, in order, share an empty folder: first those in Python, in one process, then
the commands of those in sh. A block of `output` behind another is what that one prints, with "..."
for what may differ. `performance.md` has commands of many minutes.
"""

import doctest
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUN = [page for page in PAGES if page.name != "performance.md"]
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
END = "end of block"
EXIT_CODE = re.compile(r"#\s*exit code (\d+)\s*$")
ENTRY_POINT = ("-c", "import sys; from custom_ops.cli import main; sys.exit(main())")


@dataclass(frozen=True)
class Block:
    """A block of code, with what it is to print, if the page says that."""

    language: str
    code: str
    output: str | None


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    for language, code in BLOCK.findall(page.read_text("utf-8")):
        if language == "output":
            assert found, "output of nothing"
            assert found[-1].output is None
            found[-1] = Block(found[-1].language, found[-1].code, code)
        else:
            found.append(Block(language, code, None))
    return found


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def check_output(block: Block, printed: str) -> None:
    if block.output is not None:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        example = doctest.Example(block.code, block.output)
        checker = doctest.OutputChecker()
        assert checker.check_output(block.output, printed, flags), checker.output_difference(
            example, printed, flags
        )


def run_python(python: list[Block], folder: Path) -> None:
    code = f"\nprint({END!r}, flush=True)\n".join(block.code for block in python)
    done = run(["-c", code], folder)
    assert done.returncode == 0, done.stderr
    for block, printed in zip(python, done.stdout.split(f"{END}\n"), strict=True):
        check_output(block, printed)


def run_commands(block: Block, folder: Path) -> None:
    printed = ""
    for line in block.code.replace("\\\n", " ").splitlines():
        first, *rest = shlex.split(line, comments=True) or [""]
        if first == "custom-ops":
            done = run([*ENTRY_POINT, *rest], folder)
        elif first == "python" and rest[0].startswith("examples/"):
            done = run([str(ROOT / rest[0]), *rest[1:]], folder)
        else:
            continue
        said = EXIT_CODE.search(line)
        assert done.returncode == (int(said[1]) if said else 0), done.stdout + done.stderr
        printed += done.stdout + (done.stderr if said else "")
    check_output(block, printed)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    python = [block for block in blocks(page) if block.language == "python"]
    if python:
        run_python(python, tmp_path)
    for block in blocks(page):
        if block.language == "sh":
            run_commands(block, tmp_path)


def anchors(page: Path) -> set[str]:
    text = BLOCK.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if re.match(r"\w+:", link):  # the web, which a test does not ask
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    listed = set(LINK.findall((DOCS / "README.md").read_text("utf-8")))
    assert listed >= {page.name for page in PAGES if page.name != "README.md"}


def test_every_example_is_run_by_a_page() -> None:
    code = "".join(block.code for page in RUN for block in blocks(page) if block.language == "sh")
    run_ones = set(re.findall(r"^python (examples/\S+)", code, re.MULTILINE))
    assert run_ones == {f"examples/{file.name}" for file in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n```output\n2\n```\n",
        "```python\nraise ValueError\n```\n",
        "```sh\ncustom-ops nothing\n```\n",
        "```sh\ncustom-ops --version  # exit code 1\n```\n",
        "```sh\npython examples/none.py\n```\n",
        "```sh\ncustom-ops --version\n```\n```output\ncustom-ops none\n```\n",
    ],
)
def test_a_page_that_is_wrong_fails(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError):
        test_page_runs_as_printed(page, tmp_path)


def test_a_page_that_is_right_passes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint('a b')\n```\n```output\na ...\n```\n"
        "```python\nopen('x', 'w')\n```\n"
        "```sh\npip install nothing\ncustom-ops --version\n"
        "custom-ops nothing  # exit code 2\n```\n```output\ncustom-ops ...No such command...\n```\n"
        "```text\nnot run\n```\n"
    )
    test_page_runs_as_printed(page, tmp_path)
    assert (tmp_path / "x").exists()
