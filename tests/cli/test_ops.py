"""`clarke ops` as a command; what it measures is tested with the atlas."""

import json

import pytest
import torch
from typer.testing import CliRunner

from clarke.cli import make_app

RELU = ("--only", "relu(x) - relu(")


def run(*arguments):
    return CliRunner().invoke(make_app("ops"), ["ops", *arguments])


def test_table():
    result = run(*RELU)
    assert result.exit_code == 0
    assert f"torch {torch.__version__}" in result.output
    (wrong,) = [line for line in result.output.splitlines() if "relu(-x)" in line]
    assert "not valid" in wrong


@pytest.fixture
def older(tmp_path):
    """The same rows, one of them as another version might have answered."""
    data = json.loads(run(*RELU, "--json").output)
    assert [row["call"] for row in data["rows"]] == ["relu(x) - relu(-x)", "relu(x) - relu(2 x)"]
    data["torch"] = "1.0"
    data["rows"][0]["reverse"] = [1.0]
    path = tmp_path / "older.json"
    path.write_text(json.dumps(data))
    return path


def test_differences_to_another_version(older):
    result = run(*RELU, "--diff", str(older))
    assert result.exit_code == 0
    assert result.output.startswith(f"torch 1.0 -> {torch.__version__}: 1 differences")
    assert "relu(x) - relu(-x)" in result.output


def test_markdown():
    lines = run(*RELU, "--markdown").output.splitlines()
    table = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert len(table) >= 2 + 2
    assert len({line.count("|") for line in table}) == 1


def test_a_file_that_is_no_atlas(tmp_path):
    path = tmp_path / "empty.json"
    path.write_text("{}")
    result = run(*RELU, "--diff", str(path))
    assert result.exit_code == 2
