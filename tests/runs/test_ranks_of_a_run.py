"""`clarke run` where a launcher has started several processes: the first tells, all write."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import torch
w = torch.zeros(1, requires_grad=True)
(torch.relu(w) - torch.relu(-w)).sum().backward()
"""


@pytest.mark.parametrize(("rank", "folder"), [("0", "out"), ("1", "out-rank1")])
def test_every_rank_writes_and_the_first_tells(rank: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "clarke", "run", "--out", "out", "train.py"],
        cwd=tmp_path,
        env={**os.environ, "RANK": rank},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert [f.name for f in tmp_path.iterdir() if f.is_dir()] == [folder]
    assert (tmp_path / folder / "summary.json").exists()
    told = done.stderr.split("backward()\n")[-1]
    assert "1 WRONG" in told
    assert ("rank 1: " in told) is (rank == "1")
    assert ("where and why" in told) is (rank == "0")
