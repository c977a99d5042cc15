"""`clarke explain` on the command line."""

import json

import pytest

from clarke.cli import main


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *arguments])
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


@pytest.fixture
def models(tmp_path, monkeypatch):
    (tmp_path / "made_for_explain.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def mlp():\n"
        "    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))\n"
        "    return net, torch.zeros(2, 3)\n"
        "def alone():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU())\n"
        "def number():\n"
        "    return 3, torch.zeros(2)\n"
        "def fails():\n"
        "    raise ValueError('no weights here')\n"
    )
    (tmp_path / "raises_on_import.py").write_text("raise KeyError('shape')\n")
    monkeypatch.chdir(tmp_path)


def test_the_answer_comes_first_and_the_table_on_demand(capsys, models):
    code, out, _ = run(capsys, "made_for_explain:mlp", "--strict")
    assert code == 0
    assert out.startswith("ALWAYS RIGHT (Theorem 4): for all inputs of these shapes and all")
    assert len(out.splitlines()) <= 3
    code, out, _ = run(capsys, "made_for_explain:mlp", "--details")
    assert out.startswith("ALWAYS RIGHT (Theorem 4)")
    assert "every other operation is analytic             yes" in out
    assert "relu at 1: bias `0.bias`" in out


def test_what_is_in_the_way_is_named_with_what_to_do(capsys, models):
    _, out, _ = run(capsys, "made_for_explain:alone", "--shape", "1,3,8,8")
    assert out.startswith("RIGHT WHERE CHECKED (Theorem 8)")
    assert "every layer with kinks has its own bias: no" in out
    assert "relu at 1" in out
    assert "fix:" in out
    assert "yes" not in out
    assert "main.py" not in out  # no line of whatever runs the command


def test_json_and_strict(capsys, models):
    code, out, _ = run(capsys, "made_for_explain:alone", "--shape", "1,3,8,8", "--json", "--strict")
    assert code == 2
    assert json.loads(out)["theorem"] == "EIGHT"


@pytest.mark.parametrize(
    "arguments",
    [
        ("made_for_explain",),
        ("made_for_explain:nothing",),
        ("no_such_module:x",),
        ("made_for_explain:alone",),
        ("made_for_explain:alone", "--shape", "3x3"),
        ("made_for_explain:alone", "--shape", "1,4"),
        ("made_for_explain:number",),
        ("made_for_explain:fails",),
        ("raises_on_import:net",),
    ],
)
def test_bad_usage_says_what_to_do(capsys, models, arguments):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("clarke: ")
    assert "shape" in err
