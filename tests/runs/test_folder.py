"""What is written is what is read, whole or cut off anywhere."""

import json
import os
import subprocess
import sys

import pytest

from clarke.errors import InputError
from clarke.report.runs import CulpritRecord, Picture, RunWriter, StepRecord, read_run
from clarke.verdict import Verdict


def test_a_run_is_read_as_it_was_written(tmp_path, handmade):
    made = handmade.make_run(tmp_path / "run", 50, wrong=(7,), undecided=(9, 10), skipped=1)
    run = read_run(tmp_path / "run")
    assert list(run.steps) == made
    assert run.finished
    assert run.damaged == 0
    assert run.settings["program"] == "train.py"
    assert run.summary["seconds"] == 1.5
    assert run.name == "train.py"


def test_calls_not_looked_at_and_sums_are_kept(tmp_path):
    steps = (
        StepRecord(1, None, "Left out.", group=1),
        StepRecord(2, Verdict.SMOOTH, "s", "t", group=2, joint=Verdict.SMOOTH),
        StepRecord(
            3, Verdict.SMOOTH, "s", group=2, joint=Verdict.UNDECIDED, joint_reason="no direction"
        ),
        StepRecord(4, Verdict.BOULIGAND, "b", group=4, joint=Verdict.NOT_CLARKE, repaired=True),
        StepRecord(5, Verdict.SMOOTH, "s", group=None, joint=None),
    )
    writer = RunWriter(tmp_path, {})
    for step in steps:
        writer.write(step)
    writer.finish({})
    run = read_run(tmp_path)
    assert run.steps == steps
    assert run.sums() == {Verdict.UNDECIDED: 1, Verdict.NOT_CLARKE: 1}
    assert [s.outcome for s in run.steps] == [
        None,
        Verdict.SMOOTH,
        Verdict.SMOOTH,
        Verdict.NOT_CLARKE,
        Verdict.SMOOTH,
    ]
    assert run.counts() == {Verdict.NOT_CLARKE: 1, Verdict.SMOOTH: 3}
    assert run.looked == 4


def test_every_cut_leaves_the_finished_steps(tmp_path, handmade):
    made = handmade.make_run(tmp_path / "run", 12, wrong=(3,), finish=False)
    path = tmp_path / "run" / "steps.jsonl"
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(0, len(data), 37):
        path.write_bytes(data[:cut])
        run = read_run(tmp_path / "run")
        whole = sum(
            b'"step":' in part for part in data[: max([0, *filter(cut.__ge__, ends)])].split(b"\n")
        )
        assert list(run.steps[:whole]) == made[:whole]
        assert len(run.steps) - whole in (0, 1)  # cut just before a line's end, it is complete
        assert run.damaged <= 1
        assert not run.finished


def test_damage_in_the_middle_is_counted_and_survived(tmp_path, handmade):
    handmade.make_run(tmp_path, 5)
    path = tmp_path / "steps.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], b'{"step": 1, "nonsense": tr\n', b"[1]\n", lines[-1]]))
    run = read_run(tmp_path)
    assert run.damaged == 2
    assert len(run.steps) == 5


def test_source_lines_are_kept_as_they_were(tmp_path):
    code = tmp_path / "loss.py"
    code.write_text("import torch\nloss = torch.relu(x)\n")
    culprit = CulpritRecord("relu", "", str(code), 2, "why")
    writer = RunWriter(tmp_path / "run", {})
    writer.write(StepRecord(1, Verdict.UNDECIDED, "r", culprits=(culprit,)))
    code.write_text("changed\nsince\n")
    run = read_run(tmp_path / "run")
    assert run.sources[str(code), 2] == "loss = torch.relu(x)"
    assert run.steps[0].culprits == (culprit,)


def test_names_that_are_no_unicode_and_numbers_that_are_not_finite(tmp_path):
    name = os.fsdecode(b"sk\xffript.py")
    writer = RunWriter(tmp_path, {"program": name, "value": float("nan")})
    picture = Picture((0.5,), ((1.0,), (2.0,)), (1.0,))
    step = StepRecord(1, Verdict.SMOOTH, "ü < > \n", file=name, line=3, picture=picture)
    writer.write(step)
    writer.finish({"loss": float("inf")})
    run = read_run(tmp_path)
    assert run.steps == (step,)
    assert json.loads((tmp_path / "summary.json").read_text())["loss"] == "inf"


def test_a_folder_that_holds_a_run_is_refused(tmp_path, handmade):
    handmade.make_run(tmp_path, 1)
    with pytest.raises(InputError, match="holds a run already"):
        RunWriter(tmp_path, {})


def test_no_run_and_newer_runs_are_refused(tmp_path, handmade):
    with pytest.raises(InputError, match="holds no run"):
        read_run(tmp_path)
    handmade.make_run(tmp_path, 1)
    (tmp_path / "settings.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="newer version"):
        read_run(tmp_path)


def test_a_forked_child_writes_nothing(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    code = f"""
import os
from clarke.report.runs import RunWriter, StepRecord
writer = RunWriter({str(tmp_path / "run")!r}, {{}})
writer.write(StepRecord(1, None))
if os.fork() == 0:
    writer.write(StepRecord(2, None))
    writer.finish({{"ended": "child"}})
    os._exit(0)
os.wait()
writer.write(StepRecord(3, None))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    run = read_run(tmp_path / "run")
    assert [s.number for s in run.steps] == [1, 3]
    assert not run.finished
