"""A judgement that was interrupted or killed is written as such."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

import clarke
from clarke.audit import turn
from clarke.report.runs import read_run
from clarke.report.runs.folder import RunWriter
from clarke.report.runs.model import StepRecord
from clarke.verdict import Verdict


@pytest.fixture
def x():
    return torch.zeros(3, dtype=torch.float64, requires_grad=True)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_an_interrupt_while_judging_is_a_step(monkeypatch, x):
    seen = []
    watch = clarke.audit(settings=clarke.Settings(quick=False))
    watch.subscribe(lambda step, _: seen.append(step), begun=lambda n, at: seen.append((n, at)))
    monkeypatch.setattr(turn, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt), watch:
        torch.relu(x).sum().backward()
    (step,) = watch.steps
    assert step.verdict is Verdict.UNDECIDED
    assert step.reason == "Interrupted by KeyboardInterrupt while judging step 1."
    assert seen == [(1, step.location), step]
    assert torch.equal(x.grad, torch.zeros(3, dtype=torch.float64))  # the user's call was complete


def test_an_error_of_the_users_is_no_interrupt(x):
    y = torch.relu(x).sum()
    y.register_hook(lambda _: 1 / 0)
    with clarke.audit() as watch, pytest.raises(ZeroDivisionError):
        y.backward()
    assert watch.steps == ()


def test_a_run_that_was_killed_names_the_step(tmp_path):
    writer = RunWriter(tmp_path / "run", {"program": "train.py"})
    writer.begin(1, "train.py", 7)
    writer.write(StepRecord(1, Verdict.SMOOTH, file="train.py", line=7))
    writer.begin(2, "train.py", 7)
    run = read_run(tmp_path / "run")
    assert [s.verdict for s in run.steps] == [Verdict.SMOOTH, Verdict.UNDECIDED]
    assert run.steps[1].reason == "The run was interrupted while judging step 2."
    assert (run.steps[1].file, run.steps[1].line) == ("train.py", 7)
    writer.finish(
        {"ended": "finished"}
    )  # a step that was begun and left by the program's own error
    assert len(read_run(tmp_path / "run").steps) == 1


@pytest.mark.slow
def test_the_command_says_so(tmp_path):
    (tmp_path / "train.py").write_text(
        textwrap.dedent("""\
            import torch
            x = torch.zeros(3, requires_grad=True)
            torch.abs(x).sum().backward()
            """)
    )
    kill = "import os; from clarke.audit import turn as t; t.Turn.run = lambda self: os._exit(9)"
    for words in (["run", "--out", "run", "train.py"], ["report", "run"]):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                (
                    f"{kill if words[0] == 'run' else ''}\n"
                    f"from clarke.cli import main; main({words!r})"
                ),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
            check=False,
        )
        assert done.returncode == 9 or words[0] == "report"
    (step,) = read_run(tmp_path / "run").steps
    assert step.reason == "The run was interrupted while judging step 1."
    assert step.line == 3
    page = "".join(p.read_text() for p in tmp_path.glob("**/*.html"))
    assert "interrupted while judging step 1" in page + done.stdout + done.stderr
