"""docs/sentences.md: what the right column says is what is said, and the left column no more."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import clarke
from clarke.cli.life import Life
from clarke.integrations import pytest as plugin
from clarke.report.runs.model import Run
from clarke.verdict import Verdict
from reference.leaves import leaf

PAGE = Path(__file__).parents[2] / "docs" / "sentences.md"
ROWS = [
    tuple(cell.strip() for cell in line.strip("|\n ").split(" | "))
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| was")
]


def checked(function, *values):
    """A report as text on one line, of a program whose file is called sentences.py."""
    text = str(clarke.check(function, (leaf(*values),)))
    return re.sub(r"test_sentences\.py:\d+", "sentences.py:7", " ".join(text.split()))


def lives():
    now, written = [0.0], []
    life = Life(written.append, terminal=False, expected=420, clock=lambda: now[0])
    for n in range(1, 61):
        now[0] = float(n)
        life.begun(n, SimpleNamespace(file="train.py", line=7))
        life.step(
            SimpleNamespace(
                number=n, verdict=Verdict.SMOOTH, joint=Verdict.SMOOTH, seconds=0.1, repaired=False
            ),
            None,
        )
    return written[0]


def told_by_pytest():
    x = leaf(0.0)
    with clarke.audit(lambda _: None) as audit:
        (torch.relu(x) - torch.relu(-x)).sum().backward()
    return plugin._message([(audit.steps[0], audit.reports[0])])


SAID = {
    "piece 0": lambda: checked(lambda x: torch.relu(x).sum(), 0.0),
    "piece 2": lambda: checked(lambda x: torch.nn.functional.relu6(x).sum(), 6.0),
    "weights 0.5": lambda: checked(lambda x: x.abs().sum(), 0.0),
    "weights 0.333": lambda: checked(lambda x: x.amax(), 1.0, 1.0, 1.0),
    "selects one": lambda: checked(lambda x: torch.sort(x).values[0], 1.0, 1.0),
    "1 rows": lambda: checked(lambda x: torch.relu(x).sum(), 0.0),
    "direction [0.403]": lambda: checked(lambda x: x.abs().sum(), 0.0),
    "only limiting": lambda: checked(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), 0.0),
    "hull of 2": lambda: str(
        clarke.check(lambda x: x.abs().sum(), (leaf(0.0),), gradient=torch.tensor([2.0]).double())
    ),
    "relu at x:7, relu": lambda: checked(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), 0.0),
    "gradient [-0]": lambda: checked(lambda x: (-torch.relu(x)).sum(), 0.0),
    "form a ball": lambda: checked(torch.linalg.vector_norm, 0.0, 0.0),
    "(no cure)": lambda: checked(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), 0.0),
    "exit status 0": lambda: checked(lambda x: (x**2).sum().sqrt(), 0.0, 0.0),
    "no reason": lambda: checked(lambda x: (x**2).sum().sqrt(), 0.0, 0.0),
    "main.py:1445": lambda: checked(lambda x: torch.nn.functional.relu(x).sum(), 0.0),
    "of the test's": told_by_pytest,
    "Theorem 8": lambda: str(
        clarke.explain(
            torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2)),
            torch.zeros(1, 1, 6, 6),
        )
    ),
    "(nothing for": lives,
    "did not reach": lambda: Run(Path(), {}, ()).state,
}


def test_there_are_twenty():
    assert len(ROWS) == 20
    assert len(SAID) == 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_a_sentence_is_said_as_the_page_shows(row):
    before, after = row
    (key,) = [k for k in SAID if k in before]
    said = " ".join(SAID[key]().split())
    assert after in said
    if not before.startswith("("):
        assert before not in said
