"""`clarke ops` as a command; what it measures is tested with the atlas."""

import json

import pytest
import torch
from typer.testing import CliRunner

from clarke import InputError
from clarke.cli import make_app

RELU = ("--only", "relu(x) - relu(")


def run(*arguments):
    return CliRunner().invoke(make_app("ops"), ["ops", *arguments])


def test_table():
    result = run("--only", "relu")
    assert result.exit_code == 0
    assert f"torch {torch.__version__}" in result.output
    assert "relu6(x)" in result.output
    assert "limiting" in result.output


def test_json():
    data = json.loads(run("--only", "clamp(x, m", "--json").output)
    assert data["torch"] == torch.__version__
    found = {row["call"]: row for row in data["rows"]}
    assert found["clamp(x, min=0)"]["limits"] == [[0.0], [1.0]]
    assert found["clamp(x, min=0)"]["standing"] == "LIMITING"


def test_markdown():
    text = run("--only", "relu", "--markdown").output
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "- `relu(x) - relu(-x)` at x = 0: 0; not valid" in text


def test_diff(tmp_path):
    data = json.loads(run("--only", "clamp(x, m", "--json").output)
    data["torch"] = "0.0"
    for row in data["rows"]:
        if row["call"] == "clamp(x, min=0)":
            row["reverse"] = [-3.0]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data))
    diff = ("--only", "clamp(x, m", "--diff", str(other))
    text = run(*diff).output
    assert text.startswith(f"torch 0.0 -> {torch.__version__}: 1 differences\n")
    assert "Other answers, valid both: 1" in text
    line = next(line for line in text.splitlines() if "reverse" in line)
    assert line.split()[:8] == ["clamp(x,", "min=0)", "x", "=", "0", "reverse", "-3", "a"]
    page = run(*diff, "--markdown").output
    assert "| clamp(x, min=0) | x = 0 | reverse | -3 | a limiting gradient | " in page
    (change,) = json.loads(run(*diff, "--json").output)["changes"]
    assert change["mode"] == "reverse"
    assert change["before"] == {"vector": [-3.0], "standing": "LIMITING"}


def test_diff_with_something_else_says_how_to_write_one(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("[]")
    result = run("--only", "clamp(x, m", "--diff", str(other))
    assert result.exit_code == 2
    assert "clarke ops --json" in result.output


def test_diff_with_rows_of_another_form_says_how_to_write_them(tmp_path):
    row = {"call": "clamp(x, min=0)", "kink": "x = 0", "reverse": [1.0], "standing": "LIMITING"}
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"torch": "0.0", "rows": [row]}))
    result = run("--only", "clamp(x, m", "--diff", str(other))
    assert result.exit_code == 2
    assert "another version of clarke" in result.output


def test_coverage_of_one():
    text = run("--only", "nn.functional.relu", "--coverage").output
    assert "In 1 of them (100.0%)" in text
    assert "differentiable entries" in text


@pytest.mark.parametrize("more", [[], ["--json"], ["--coverage"]])
def test_what_matches_nothing_says_so(more):
    with pytest.raises(InputError, match="zzz"):
        CliRunner().invoke(make_app("ops"), ["ops", "--only", "zzz", *more], catch_exceptions=False)
