"""What the first screen of `clarke run` says, and its page: line, right value, cure, status."""

import os
import subprocess
import sys

import pytest

from clarke.report.runs import read_run
from clarke.report.runs.page import run_page

HEAD = """import torch

w = torch.nn.Parameter(torch.tensor([{point}]))
optimizer = torch.optim.SGD([w], lr=0.1)
for step in range(3):
    optimizer.zero_grad()
    loss = {loss}
    loss.backward()
    optimizer.step()
"""
# Point, loss, status, and what the screen and the page say.
PLANTED = {
    "relus": (
        "0.0",
        "(torch.relu(w) - torch.relu(-w)).sum()",
        1,
        ("returned 0, right 1", "torch.maximum(x, torch.zeros_like(x)) in place of both relus"),
    ),
    "abs": (
        "0.0",
        "(w.abs() + w - 2 * torch.relu(w)).sum()",
        1,
        ("returned 1, right 0", "torch.where(x > 0, x, -x) in place of abs"),
    ),
    "root": (
        "0.0, 0.0",
        "(w**2).sum().sqrt()",
        3,
        ("NaN or infinity", "torch.linalg.vector_norm(x, dim=...)"),
    ),
    "branch": (
        "0.0, 1.0",
        "torch.where(w != 0, torch.sin(w) / w, 1 + 0 * w).sum()",
        3,
        ("NaN or infinity", "Give div a harmless argument"),
    ),
}


def ran(folder, script, *options):
    (folder / "train.py").write_text(script)
    command = [sys.executable, "-m", "clarke", "run", "--out", "out", *options, "train.py"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ}
    )


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", PLANTED)
def test_screen_and_page_name_line_value_and_cure(tmp_path, name):
    point, loss, status, said = PLANTED[name]
    found = ran(tmp_path, HEAD.format(point=point, loss=loss), "--seconds", "20")
    assert found.returncode == status
    screen = flat(found.stderr)
    assert "train.py:7" in screen
    assert "WrongGradientWarning" in screen
    assert "Instead:" in screen
    page = run_page(read_run(tmp_path / "out"))
    assert "Instead:" in page
    for words in said:
        assert words in screen.split("looked at:")[1]
        assert words.replace(">", "&gt;").replace("'", "&#x27;") in page


def test_nan_that_is_ignored_or_repaired_does_not_count(tmp_path):
    point, loss, _, _ = PLANTED["root"]
    script = HEAD.format(point=point, loss=loss)
    (tmp_path / "a").mkdir()
    ignored = ran(tmp_path / "a", script, "--on-nonfinite", "ignore", "--seconds", "20")
    assert ignored.returncode == 0
    assert "WrongGradientWarning" not in ignored.stderr
    (tmp_path / "b").mkdir()
    repaired = ran(tmp_path / "b", script, "--on-nonfinite", "repair", "--seconds", "20")
    assert repaired.returncode == 0
    assert "repaired: a right gradient was put in its place" in flat(repaired.stderr)


def test_a_run_that_was_interrupted_says_so(tmp_path):
    script = HEAD.format(point="1.0", loss="w.sum()") + "    raise KeyboardInterrupt\n"
    found = ran(tmp_path, script)
    assert found.returncode == 130
    assert "The program ended early (KeyboardInterrupt" in flat(found.stderr)
    assert "The program ended early: KeyboardInterrupt" in run_page(read_run(tmp_path / "out"))
