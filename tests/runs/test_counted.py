"""What a run counts: kinks that matter, findings that do not count, NaN alone."""

import pytest

from clarke.report import KinkSummary
from clarke.report.runs import RunWriter, StepRecord, read_run
from clarke.report.runs.digest import places
from clarke.report.runs.model import ignored_text
from clarke.report.runs.page import run_page

pytestmark = pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")

ROOT = """import torch

w = torch.zeros(2, requires_grad=True)
for step in range({steps}):
    length = (w**2).sum().sqrt()
    loss = length + w.abs().sum()
    loss.backward()
    w.grad = None
"""


def test_the_kink_that_made_nan_matters(clarke_command, tmp_path):
    (tmp_path / "train.py").write_text(ROOT.format(steps=1))
    done = clarke_command("run", "--out", "run", "--seconds", "20", "train.py")
    assert done.status == 3
    rows = [r.split() for r in done.err.splitlines() if r.startswith("train.py:")]
    counted = {r[1]: r[-2:] for r in rows if len(r) == 6}
    assert counted == {"sqrt": ["1", "1"], "abs": ["2", "?"]}
    found = {p.operation: p.matter for p in places(read_run(tmp_path / "run"))}
    assert found == {"sqrt": "1 matter", "abs": "how many matter was not found out"}
    page = run_page(read_run(tmp_path / "run"))
    assert "of them matter, as far as found out" in page
    assert " 0 matter" not in page


def test_nan_alone(clarke_command, tmp_path):
    (tmp_path / "train.py").write_text(ROOT.format(steps=3))
    words = ("run", "--on-nonfinite", "only", "--seconds", "20")
    done = clarke_command(*words, "--out", "run", "train.py")
    assert done.status == 3
    told = " ".join(done.err.split())
    assert "3 NaN or infinity" in told
    assert "the operation is not known" in told  # of the first and the last
    assert "train.py:5 length = (w**2).sum().sqrt()" in told  # of the second, which was recorded
    assert "torch.linalg.vector_norm" in told
    (tmp_path / "train.py").write_text(ROOT.format(steps=40).replace("zeros", "ones"))
    done = clarke_command(*words, "--out", "other", "train.py")
    assert done.status == 0
    assert "40 backward calls, 0 looked at" in done.err
    run = read_run(tmp_path / "other")
    assert [s.number for s in run.steps] == list(range(1, 41))
    assert {s.reason for s in run.steps} == {"Its gradient is finite; nothing else was looked at."}
    assert {(s.file.rpartition("/")[2], s.line) for s in run.steps} == {("train.py", 7)}
    assert len((tmp_path / "other" / "steps.jsonl").read_text().splitlines()) < 20


def test_steps_not_looked_at_keep_their_order_and_places(tmp_path):
    writer = RunWriter(tmp_path / "run", {})
    for number in (1, 2):
        writer.pass_by(number, "a.py", 1, "left out")
    writer.pass_by(3, "a.py", 2, "left out")
    kink = KinkSummary("relu", "", "a.py", 1, 4, 1, 1, "took the left side")
    writer.write(StepRecord(4, None, "other", kinks=(kink,), file="a.py", line=1))
    writer.pass_by(5, "a.py", 1, "left out")
    unfinished = read_run(tmp_path / "run")  # as after the end of the process: but for the last
    writer.finish({"status": 0})
    assert [s.number for s in unfinished.steps] == [1, 2, 3, 4]
    steps = read_run(tmp_path / "run").steps
    assert [(s.number, s.line) for s in steps] == [(1, 1), (2, 1), (3, 2), (4, 1), (5, 1)]
    assert all(s.verdict is None for s in steps)


def test_number_of_comments():
    assert ignored_text(0, 0) == ""
    assert ignored_text(1, 1) == "1 does not count: # clarke: ignore on 1 line"
    assert ignored_text(5, 2) == "5 do not count: # clarke: ignore on 2 lines"
