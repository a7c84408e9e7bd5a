"""Every snippet and command of the README, as printed."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(), re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
if find_spec("torchvision") is None:  # it is optional, as are the snippets from its import on
    first = next(i for i, code in enumerate(PYTHON) if "import torchvision" in code)
    PYTHON = PYTHON[:first]
# The installing commands run in .ci/run, in fresh environments; here runs what follows them.
COMMANDS = [
    command.strip()
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
    for command in line.split("&&")
    if not command.strip().startswith(("pip install", "pytest", "custom-ops demo"))
]


def test_python_snippets_run_in_order(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(PYTHON)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("equal (largest difference") == 3
    assert (tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    assert command.startswith("custom-ops ")
    entry_point = "from custom_ops.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", entry_point, *command.split()[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_sacred_commands_are_there() -> None:
    text = README.read_text()
    assert "pip install -e . && custom-ops demo" in text
    assert "pip install -e '.[test]' && pytest" in text
