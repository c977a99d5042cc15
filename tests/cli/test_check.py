"""`clarke check module:function`: inputs, statuses, JSON."""

import json
import math
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from clarke.cli import make_app

LOSSES = """
import torch


def right(x):
    return torch.relu(x).sum()


def wrong(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


def root(x):
    return (x**2).sum().sqrt()


def pair():
    return wrong, torch.zeros(2, requires_grad=True)
"""


@pytest.fixture
def losses(tmp_path, monkeypatch):
    (tmp_path / "losses_to_check.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "losses_to_check"


def called(*arguments):
    return CliRunner().invoke(make_app("check"), ["check", *arguments])


@pytest.mark.parametrize(
    ("name", "options", "status", "said"),
    [
        ("right", ("--inputs", "2", "--at", "zeros"), 0, "BOULIGAND"),
        ("right", ("--inputs", "2x2"), 0, "SMOOTH"),
        ("wrong", ("--inputs", "2", "--at", "zeros"), 1, "instead   torch.maximum("),
        ("pair", (), 1, "NOT_CLARKE"),
        ("root", ("--inputs", "2", "--at", "zeros"), 3, "torch.linalg.vector_norm"),
        ("root", ("--inputs", "2", "--at", "ones"), 0, "SMOOTH"),
    ],
)
def test_the_status_tells_the_verdict(losses, name, options, status, said):
    found = called(f"{losses}:{name}", *options)
    assert found.exit_code == status
    assert said in found.output


def test_json_is_json_where_a_gradient_is_nan(losses):
    found = called(f"{losses}:root", "--inputs", "2", "--at", "zeros", "--json")

    def refuse(name):
        raise AssertionError(name)

    report = json.loads(found.output, parse_constant=refuse)
    assert report["verdict"] == "NONFINITE"
    assert [math.isnan(float(v)) for v in report["gradient"][0]] == [True, True]
    assert report["culprits"][0]["line"] == 14
    assert "vector_norm" in report["cures"][0]


def test_what_is_not_there_is_said(losses):
    from clarke.errors import InputError

    found = called(f"{losses}:nothing", "--inputs", "2")
    assert isinstance(found.exception, InputError)
    assert "cannot be imported" in str(found.exception)
    found = called(f"{losses}:right", "--inputs", "two")
    assert "--inputs takes shapes" in str(found.exception)


def test_a_function_of_torch_stands_at_torchs_own_line(tmp_path):
    """Where no line is the user's, it is not that of whatever runs the command line."""
    words = ["check", "torch.nn.functional:relu", "--inputs", "()", "--at", "zeros"]
    said = subprocess.run(
        [sys.executable, "-m", "clarke", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "relu at functional.py:" in said
