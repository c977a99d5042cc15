"""Every command of the pages, run where its files are, at 60, 80 and 120 columns.

What they print fits the terminal, and the same words come at every width: none is cut.
"""

import json
import re
import shutil
from collections import Counter

import pytest
import torch

import clarke
from runs.test_documented import FENCE, ROOT, commands

WIDTHS = (60, 80, 120)
# What the pages show with numbers that take minutes: the same with smaller ones.
SHORTER = {"--networks": "2", "--seconds": "20"}
# Needs the files of CIFAR-10; its own tests run it.
ELSEWHERE = frozenset({"reproduce"})
LINES = sorted({" ".join(words) for _, words in commands() if words[0] not in ELSEWHERE})
QUICK = ("examples lemma-2", "verify step.clarke", "report old.json new.json")
STATUSES = {0, 1, 2, 3}
# Times, and where the run went; a bar shows progress.
BARS = "[━╸╺─│┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛┃┡┩╇╈▁▂▃▄▅▆▇█]"
MOVES = re.compile(
    BARS + r"|\d+\.\d+|\d+ s\b|\(\d+ %\)|runs/(train|demo)-\d+-\d+|try\s+--every\s+\d+"
)

CASES = [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in LINES]

pytestmark = pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")

LOSSES = """
import torch


def focal(x, t):
    p = torch.clamp(x, min=0) - x * t + torch.log1p(torch.exp(-torch.abs(x)))
    return (p**2).mean()
"""
MODELS = """
import torch


def make_model():
    convolution = torch.nn.Conv2d(3, 4, 3)
    return torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.MaxPool2d(2))
"""


def suite(verdict, value, choice):
    """A file of pytest --clarke-record with one test."""
    values = {"shape": [1], "dtype": "float64", "entries": [repr(value)]}
    gradient = {
        "called": "test_loss.py",
        "verdict": verdict,
        "values": [values],
        "choices": {"clamp at losses.py: `x.clamp(min=0)`": f"autograd took the {choice} side"},
    }
    test = {"outcome": "passed", "gradients": [gradient]}
    return {"clarke_suite": 1, "torch": "2.13.0", "tests": {"tests/test_loss.py::test_step": test}}


@pytest.fixture
def place(tmp_path, clarke_command):
    """A folder with the files that the commands name."""
    page = (ROOT / "docs" / "commands" / "run.md").read_text("utf-8")
    script = next(code for language, code in FENCE.findall(page) if language == "py")
    (tmp_path / "mypackage").mkdir()
    for name, text in {
        "train.py": script,
        "mypackage/train.py": script,
        "mypackage/models.py": MODELS,
        "mylosses.py": LOSSES,
        "old.json": json.dumps(suite("NOT_CLARKE", 1.0, "right")),
        "new.json": json.dumps(suite("SMOOTH", 0.5, "left")),
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), (x,))
    report.save(tmp_path / "step.clarke")
    report.save(tmp_path / "wrong.clarke")
    return tmp_path


def expanded(words, place):
    """What a shell makes of patterns."""
    for word in words:
        found = [str(f) for f in place.glob(word) if f.suffixes == [".clarke"]]
        yield from sorted(found) if "*" in word else [word]


def prepared(line, clarke_command):
    """The words of a command, after those before it on its page."""
    words = [str(w) for w in line.split(" > ")[0].split()]
    for at, word in enumerate(words[:-1]):
        if word in SHORTER:
            words[at + 1] = SHORTER[word]
    if words[0] == "run":
        words[1:1] = ["--seconds", "30"]
    needs = [w for w in words if w.startswith("runs/")]
    for folder in dict.fromkeys("/".join(w.split("/")[:2]) for w in needs):
        if words[0] != "run":
            known = ("--baseline", "known.json") if "--baseline" in words else ()
            clarke_command("run", "--keep", *known, "--out", folder, "train.py")
    return words


@pytest.mark.parametrize("line", CASES)
def test_a_command_of_the_pages_fits_every_width(line, place, clarke_command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = prepared(line, clarke_command)
    said = {}
    for width in WIDTHS:
        if words[0] == "run":
            shutil.rmtree(place / "runs", ignore_errors=True)
            (place / "known.json").unlink(missing_ok=True)
        monkeypatch.setenv("COLUMNS", str(width))
        done = clarke_command(*expanded(words, place))
        assert done.status in STATUSES, done.err
        told = done.out + done.err
        if not {"--sarif", "--annotations", "--markdown"} & set(words):
            wide = [x for x in told.splitlines() if len(x) > width and len(x.split()) > 1]
            assert wide == []
        # Titles of columns that have no room come instead of a table's, with a colon each.
        said[width] = Counter(w.rstrip(":") for w in MOVES.sub(" ", told).split())
    assert said[60].keys() - said[120].keys() <= {"in"}
    assert said[120].keys() - said[60].keys() <= {"verdict", "where", "and", "why"}
    assert said[80].keys() == said[120].keys()
