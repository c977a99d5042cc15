"""`clarke hunt`."""

import json

import pytest
from typer.testing import CliRunner

import clarke
from clarke.cli import make_app


def run(*arguments):
    return CliRunner().invoke(make_app("hunt"), ["hunt", *arguments])


def test_a_find_is_shown_and_told_to_the_shell():
    said = run("reference.faults:leaky_wrong", "--inputs", "2", "--seconds", "40", "--script")
    assert said.exit_code == 1, said.output
    assert "FOUND 1 fault of the gradient" in said.output
    assert "1. a wrong gradient\n  input 0   [0]" in said.output
    assert "import torch\ndef leaky_wrong(x):" in said.output


def test_plain_data():
    said = run("reference.faults:leaky_wrong", "--inputs", "2", "--json", "--seconds", "40")
    assert said.exit_code == 1
    assert json.loads(said.output)["finds"][0]["inputs"] == [[0.0]]


def test_a_factory_with_its_example(monkeypatch, tmp_path):
    text = (
        "import torch\n"
        "def make():\n"
        "    return lambda x: x.abs().sum(), torch.ones(2, requires_grad=True)\n"
        "def broken():\n"
        "    raise ValueError('no data')\n"
    )
    (tmp_path / "some_losses.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = run("some_losses:make", "--seconds", "10")
    assert said.exit_code == 0, said.output
    assert said.output.startswith("Found no wrong gradient")
    assert "ValueError: no data" in str(run("some_losses:broken").exception)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("reference.faults",), "is not of the form module:"),
        (("reference.faults:absent",), "cannot be imported"),
        (("reference.faults:leaky_wrong", "--inputs", "2;3"), "--inputs takes shapes such as"),
        (("reference.faults:bce_wrong", "--inputs", "2,3"), "Do the inputs have the shapes"),
        (("clarke.verdict:Verdict.SMOOTH.name.upper",), "returned no function with example"),
    ],
)
def test_what_cannot_be_hunted(arguments, says):
    error = run(*arguments).exception
    assert isinstance(error, clarke.InputError)
    assert says in str(error)
