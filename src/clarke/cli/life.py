"""A sign of life while a script runs under audit: one line on a terminal, a line a minute in a log.

On a terminal the line goes away before the program prints, and comes back after it: for that the
program's `sys.stdout` and `sys.stderr` are stood in for. Where the program is in the middle of a
line (a bar of its own), nothing is drawn.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from clarke.audit.lookout import NOT_FINITE_ONLY
from clarke.cli.progress import time_text
from clarke.numerics import JUDGING_NOTABLE, JUDGING_SHARE
from clarke.report.runs.folder import SETTINGS, SUMMARY, read_json
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke import Audit, Report, Step
    from clarke.capture import Location

_APART = 60.0  # seconds between two lines of a log
_DRAWN = 0.1  # seconds between two drawings on a terminal
_ERASE = "\r\x1b[K"


class Life:
    """What is known of a run while it goes on, in one line.

    Args:
        write: Takes what is to be shown.
        terminal: Whether the line is drawn over and over, rather than written once a minute.
        width: Columns of the terminal.
        expected: Backward calls in all, as far as known.
        every: Which calls are looked at.
        clock: Seconds.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        terminal: bool,
        width: int = 80,
        expected: int | None = None,
        every: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._write = write
        self._terminal = terminal
        self._width = width
        self._expected = expected
        self._every = every
        self._clock = clock
        self._started = self._said = clock()
        self._counts: Counter[str] = Counter()
        self._judging = 0.0
        self._process = os.getpid()
        self._drawn = False
        self.free = True  # the cursor is at the beginning of a line

    def begun(self, number: int, at: Location) -> None:
        """The judging of a call begins: it may be what takes long."""
        self._show(f"step {number:,} ({Path(at.file).name}:{at.line})", number - 1)

    def step(self, step: Step, _report: Report | None) -> None:
        """A call is done."""
        self._judging += step.seconds
        self._counts[_word(step)] += 1
        self._show(f"step {step.number:,} done", step.number)

    def passed(self, number: int, _at: Location, why: str) -> None:
        """A call is done that was not looked at, or for nothing but NaN and infinity."""
        self._counts["finite" if why == NOT_FINITE_ONLY else "not looked at"] += 1
        self._show(f"step {number:,} done", number)

    def text(self, what: str, done: int) -> str:
        """The line: step, verdicts, share of judging (and what to do about it), time left."""
        elapsed = max(self._clock() - self._started, sys.float_info.min)
        share = min(self._judging / elapsed, 1.0)
        told = what
        if self._counts:
            told += ": " + ", ".join(f"{n:,} {word}" for word, n in self._counts.most_common())
        told += f"; judging takes {100 * share:.0f} %"
        if share > JUDGING_SHARE and self._judging > JUDGING_NOTABLE:
            told += f": try --every {10 * self._every}"
        if self._expected is not None and 0 < done < self._expected:
            told += f"; about {time_text((self._expected - done) * elapsed / done)}"
        return told

    def _show(self, what: str, done: int) -> None:
        now = self._clock()
        if now - self._said < (_DRAWN if self._terminal else _APART):
            return
        if not self.free or os.getpid() != self._process:
            return
        self._said = now
        line = self.text(what, done)
        if not self._terminal:
            self._write(f"clarke: {line}\n")
            return
        short = line if len(line) < self._width else line[: self._width - 2] + "…"
        self._write(_ERASE + short)
        self._drawn = True

    def erase(self) -> None:
        """Take the line away."""
        if self._drawn and os.getpid() == self._process:
            self._write(_ERASE)
        self._drawn = False


def _word(step: Step) -> str:
    verdict = step.joint if step.joint is Verdict.NOT_CLARKE else step.verdict
    if step.repaired:
        return "repaired"
    match verdict:
        case None:
            return "not looked at"
        case Verdict.NOT_CLARKE:
            return "WRONG"
        case Verdict.NONFINITE:
            return "NaN or infinity"
        case _:
            return "right" if verdict.correct else "undecided"


class _InFront:
    """A stream of the program's, before whose words the line is taken away."""

    def __init__(self, stream: TextIO, life: Life) -> None:
        self._stream = stream
        self._life = life

    def write(self, text: str) -> int:
        if text:
            self._life.erase()
            self._life.free = text.endswith("\n")
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def shown(watch: Audit, folder: Path, every: int) -> Iterator[Life]:
    """Show how far a run is for as long as the block lasts.

    Args:
        watch: The audit, not entered yet.
        folder: Of the run; those beside it tell how many steps the program took last time.
        every: Which calls are looked at.
    """
    out, err = sys.stdout, sys.stderr
    terminal = err.isatty()

    def write(text: str) -> None:
        err.write(text)
        err.flush()

    life = Life(
        write,
        terminal=terminal,
        width=_columns(err) if terminal else 80,
        expected=calls_last_time(folder),
        every=every,
    )
    watch.subscribe(life.step, gradients=False, begun=life.begun, passed=life.passed)
    if terminal:
        sys.stderr = _InFront(err, life)
        if out.isatty():
            sys.stdout = _InFront(out, life)
    try:
        yield life
    finally:
        life.erase()
        if isinstance(sys.stdout, _InFront):
            sys.stdout = out
        if isinstance(sys.stderr, _InFront):
            sys.stderr = err


def calls_last_time(folder: Path) -> int | None:
    """Backward calls of the same program with the same arguments, when it last came to its end."""
    own = read_json(folder / SETTINGS)
    found: tuple[str, int] | None = None
    try:
        beside = [p for p in folder.resolve().parent.iterdir() if p.is_dir()]
    except OSError:
        return None
    for other in beside:
        summary = read_json(other / SUMMARY)
        if summary.get("status") != 0 or not isinstance(summary.get("calls"), int):
            continue
        settings = read_json(other / SETTINGS)
        if all(settings.get(k) == own.get(k) for k in ("program", "arguments", "module")):
            found = max(found or ("", 0), (str(settings.get("started", "")), summary["calls"]))
    return None if found is None else found[1]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
