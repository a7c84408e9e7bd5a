"""Tests of scripts that run in a process of their own."""

from pathlib import Path

import pytest

from custom_ops.onnx import _child

SAID = "import json, os, sys, time\nprint(json.dumps(dict(read=sys.stdin.read())), flush=True)\n"


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("", (0, "")),
        ("print('a library says')\nprint('{cut')\nprint('[1]')", (0, "")),
        ("sys.exit('why')", (1, "why\n")),
        ("os.abort()", (-6, "")),
        ("time.sleep(60)", (None, "")),
    ],
)
def test_what_was_said_is_kept(code: str, ended: tuple[int | None, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SAID + code)
    done = _child.run([script], {"number": 1}, 2.0 if "sleep" in code else 60.0)
    assert (done.code, done.errors) == ended
    assert done.answers == [{"read": '{"number": 1}'}]


def test_bytes_pass_as_they_are() -> None:
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert _child.run(["-c", code], b"\x00\xff", 60.0).output == b"\x00\xff"
