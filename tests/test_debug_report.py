"""What a comparison looks like: as text, as JSON, and as a table of pandas."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from custom_ops.debug import Comparison, Fault, Unmatched, Value
from custom_ops.debug._metrics import detail, measure
from custom_ops.debug._report import text


def value(name, expected, actual, *, limit=1e-5, kind=Value, **more):
    expected, actual = np.float32(expected), np.float32(actual)
    return kind(
        name=name,
        node=f"node_{name}",
        op_type="Conv",
        nodes=(f"node_{name}",),
        module=("features.0", "features.1"),
        partner="aten.convolution",
        source="/home/me/project/models/net.py:12",
        shape=expected.shape,
        dtype="float32",
        metrics=measure(expected, actual),
        arriving=measure(expected, actual + np.float32(1)),
        limit=limit,
        limit_by="rounding",
        details=detail(expected, actual),
        **more,
    )


FINE = value("fine", [1, 2], [1, 2.000002])
BAD = value("bad", [[1, 2]], [[1, 2.5]])
BORN = value("born", [1, 2], [np.nan, np.inf])
FAULTS = (
    value("bad", [[1, 2]], [[1, 2.5]], kind=Fault, difference="attribute epsilon is 1, not 2"),
    value("born", [1, 2], [np.nan, np.inf], kind=Fault, note="judged with [brackets]"),
)
CLEAN = Comparison(values=(FINE,), faults=(), outputs=(FINE,), model="net")
WRONG = Comparison(
    values=(FINE, BAD, BORN),
    faults=FAULTS,
    outputs=(BAD,),
    unmatched=(
        Unmatched("model", "a", "Cast", "features", "no op of torch is like it"),
        Unmatched("model", "b", "Cast", "features", "no op of torch is like it"),
        Unmatched("reference", "aten.add", "aten.add", "", "nothing in [scope] fits"),
    ),
    notes=("not compared: loop body",),
    model="net",
    versions=(("torch", "2.14.1"),),
    seconds=(("torch", 0.5),),
)


def test_a_clean_result_is_short():
    lines = text(CLEAN, width=100).splitlines()
    assert lines[0] == "net: no fault; 1 value compared"
    assert lines[1] == "output fine: differs by 1, by optimization 1.91e-06 (limit 1e-05)"
    assert lines[2:] == ["closest to its limit: node_fine (Conv), 0.19 of it"]
    assert text(Comparison(values=(), faults=())) == "no fault; 0 values compared"


def test_faults_come_first_with_all_that_names_them():
    shown = text(WRONG, width=120)
    assert shown.startswith("net: 2 faults; 3 values compared\n")
    order = ["Faults", "node_born", "attribute epsilon", "Outputs", "Closest", "without", "note:"]
    places = [shown.index(word) for word in order]
    assert places == sorted(places)
    row = next(line for line in shown.splitlines() if "node_bad" in line)
    for cell in ("features.0", "Conv", "0.5", "1.5", "1e-05", "models/net.py:12"):
        assert cell in row
    assert "2 NaN or inf" in shown
    assert "node_bad: attribute epsilon is 1, not 2" in shown
    assert "node_born: judged with [brackets]" in shown
    assert "without partner: 2 of the model and 1 of the reference\n" in shown
    assert "2 of the model: no op of torch is like it" in shown
    assert "1 of the reference: nothing in [scope] fits" in shown
    assert shown.endswith("note: not compared: loop body")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_asked(width):
    long = replace(FAULTS[0], node="encoder/" * 12 + "Conv", module=("encoder.layers." * 5,))
    shown = text(replace(WRONG, faults=(long,)), width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert "\x1b" not in shown
    folded = "".join(character for character in shown if character.isalnum())
    assert folded.count("encoder") == 12 + 5 + 12 or width == 200  # nothing is cut off


def test_many_faults_are_counted():
    shown = text(replace(WRONG, faults=FAULTS[:1] * 33), width=120)
    assert "and 13 more faults" in shown


def test_the_width_of_the_terminal_counts(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, str(WRONG).splitlines())) <= 60
    monkeypatch.setenv("COLUMNS", "180")
    assert max(map(len, str(WRONG).splitlines())) > 60


def test_an_output_alone_may_be_above_its_limit():
    shown = text(replace(WRONG, faults=()), width=100)
    assert shown.startswith("net: no node is at fault, but not every output is right; 3")
    assert "above" in next(line for line in shown.splitlines() if "bad" in line)


def test_a_mismatch_is_said_instead_of_a_number():
    odd = value("odd", [[1, 2]], [1, 2, 3], kind=Fault)
    assert "shape [3], not [1, 2]" in text(replace(WRONG, faults=(odd,)), width=200)


def test_optimization_and_approximation_are_said():
    optimized = replace(FAULTS[0], kind="optimization")
    shown = text(replace(WRONG, faults=(optimized,), approximate=True), width=140)
    assert "optimization" in shown
    assert "1 fault; 3 values compared, paired by shapes and numbers alone" in shown


def test_as_dict_has_everything_in_the_types_of_json():
    found = WRONG.as_dict()
    assert list(found) == [
        "ok", "model", "comparable", "approximate", "simulated", "faults", "outputs", "values",
        "unmatched", "uncompared", "notes", "versions", "seconds",
    ]  # fmt: skip
    bad = found["faults"][0]
    assert (bad["kind"], bad["introduced"], bad["inherited"], bad["ok"]) == (
        "nodes",
        0.5,
        1.5,
        False,
    )
    assert bad["module"] == ["features.0", "features.1"]
    assert bad["difference"] == "attribute epsilon is 1, not 2"
    assert bad["details"]["worst"] == [{"index": [0, 1], "expected": 2.0, "actual": 2.5}]
    assert found["values"][2]["metrics"]["nan"] == [0, 1]
    assert found["versions"] == {"torch": "2.14.1"}
    assert found["unmatched"][2]["side"] == "reference"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_json_is_valid_where_numbers_are_not_finite(tmp_path):
    path = tmp_path / "new" / "report.json"
    written = WRONG.to_json(path)

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == json.loads(written) == WRONG.as_dict()
    worst = found["values"][2]["details"]["worst"]
    assert [element["actual"] for element in worst] == ["nan", "inf"]
    assert math.isnan(float(worst[0]["actual"]))
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_json_overwrites_nothing_unless_told(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"^to_json: path must be a new file, got .*; overwrite"):
        WRONG.to_json(path)
    assert path.read_text() == "mine"
    WRONG.to_json(path, force=True)
    assert json.loads(path.read_text()) == WRONG.as_dict()
    with pytest.raises(ValueError, match=r"^to_json: path must be a file, got .*, a folder; "):
        WRONG.to_json(tmp_path, force=True)


def test_a_table_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = WRONG.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert table["name"].tolist() == ["fine", "bad", "born"]
    assert table["introduced"].tolist()[1] == 0.5
    assert table["fault"].tolist() == ["", "nodes", "nodes"]
    assert table["module"][0] == "features.0, features.1"
    assert table["disagree"].tolist() == [0, 0, 2]
    assert list(Comparison(values=(), faults=()).to_dataframe().columns) == list(table.columns)


def test_without_pandas_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r"^to_dataframe needs pandas, .*; run `pip install pandas`$"
    ):
        WRONG.to_dataframe()
