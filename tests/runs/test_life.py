"""How far a run is, while it goes on: in a log, and on a terminal among what the program prints."""

import json
import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from clarke.cli.life import Life, _InFront, calls_last_time
from clarke.verdict import Verdict

AT = SimpleNamespace(file="/somewhere/train.py", line=7)


def step(number, verdict=Verdict.SMOOTH, seconds=0.0, *, repaired=False):
    return SimpleNamespace(
        number=number, verdict=verdict, joint=verdict, seconds=seconds, repaired=repaired
    )


@pytest.fixture
def told():
    """What is written, the time, and a line of life that knows of both."""
    written, now = [], [0.0]

    def make(**options):
        return Life(written.append, clock=lambda: now[0], **options)

    return SimpleNamespace(written=written, now=now, make=make)


def test_a_log_gets_a_line_a_minute(told):
    life = told.make(terminal=False, expected=400)
    for n in range(1, 201):
        told.now[0] = float(n)
        life.begun(n, AT)
        life.step(step(n, Verdict.NOT_CLARKE if n == 3 else Verdict.SMOOTH, 0.1), None)
    assert told.written == [
        "clarke: step 60 (train.py:7): 58 right, 1 WRONG; judging takes 10 %; about 6 min left\n",
        "clarke: step 120 (train.py:7): 118 right, 1 WRONG; judging takes 10 %; about 5 min left\n",
        "clarke: step 180 (train.py:7): 178 right, 1 WRONG; judging takes 10 %; about 4 min left\n",
    ]


def test_where_judging_takes_most_of_the_time_it_says_what_to_do(told):
    life = told.make(terminal=False, every=2)
    told.now[0] = 59.0
    life.step(step(1, Verdict.UNDECIDED, 36.0), None)
    told.now[0] = 60.0
    life.begun(2, AT)
    said = "clarke: step 2 (train.py:7): 1 undecided; judging takes 60 %: try --every 20\n"
    assert told.written == [said]


def test_repaired_and_not_looked_at_are_said(told):
    life = told.make(terminal=False)
    life.step(step(1, Verdict.NOT_CLARKE, repaired=True), None)
    life.step(step(2, None), None)
    life.step(step(3, Verdict.NONFINITE), None)
    text = life.text("step 3", 3)
    assert text.startswith("step 3: 1 repaired, 1 not looked at, 1 NaN or infinity; ")


def test_a_terminal_has_one_line_of_its_width(told):
    life = told.make(terminal=True, width=40)
    told.now[0] = 1.0
    life.begun(1000, AT)
    (line,) = told.written
    assert line.startswith("\r\x1b[Kstep 1,000 (train.py:7)")
    assert len(line.removeprefix("\r\x1b[K")) < 40


def test_the_line_goes_before_the_program_prints(told):
    life = told.make(terminal=True)
    screen = SimpleNamespace(write=lambda text: told.written.append(text) or len(text), name="out")
    front = _InFront(screen, life)
    told.now[0] = 1.0
    life.begun(1, AT)
    assert front.write("loss 1\n") == 7
    assert told.written[1:] == ["\r\x1b[K", "loss 1\n"]
    front.write("half a")  # a bar of the program's own
    told.now[0] = 2.0
    life.begun(2, AT)
    assert told.written[3:] == ["half a"]
    assert front.name == "out"


def folder(path, calls, status=0, **settings):
    path.mkdir()
    (path / "settings.json").write_text(
        json.dumps({"program": "a.py", "arguments": [], "module": False, **settings})
    )
    if calls is not None:
        (path / "summary.json").write_text(json.dumps({"status": status, "calls": calls}))
    return path


def test_how_many_steps_there_were_last_time(tmp_path):
    folder(tmp_path / "one", 10, started="2026-01-01")
    folder(tmp_path / "two", 20, started="2026-01-02")
    folder(tmp_path / "other", 30, started="2026-01-03", arguments=["--long"])
    folder(tmp_path / "ended", 40, 1, started="2026-01-04")
    new = folder(tmp_path / "new", None)
    assert calls_last_time(new) == 20
    assert calls_last_time(folder(tmp_path / "b", None, program="b.py")) is None


SCRIPT = """
import sys, time, torch
w = torch.ones(2, requires_grad=True)
for n in range(4):
    torch.relu(w).sum().backward()
    time.sleep(0.12)
    print("line", n)
assert sys.stdout.isatty() and sys.stdout.buffer
"""


def test_on_a_real_terminal(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "clarke", "run", "--out", "run", "train.py"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert done.wait(timeout=60) == 0
    text = shown.decode()
    assert re.search(r"\r\x1b\[Kstep 3 \(train\.py:5\): 2 right; judging takes \d+ %", text)
    seen = re.sub(r"[^\n]*\r\x1b\[K", "", text)  # what is erased is not seen
    assert "line 0\r\nline 1\r\nline 2\r\nline 3\r\n" in seen
    assert "judging takes" not in seen
