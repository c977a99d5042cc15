"""How far a long command is and how long it will still take: a bar, or lines in a log."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    Show = Callable[[str, int, int], None]

_REMEMBERED = 500  # steps whose duration the estimate rests on
_APART = 60.0  # seconds between two lines of a log


class Pace:
    """Estimates the remaining time from the steps that were really done.

    What was done before (finished runs, restored epochs) arrives as a jump and does not count.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[int, float] | None = None
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)

    def reach(self, position: int) -> None:
        """Note that so many steps are done."""
        now = self._clock()
        if self._last is not None and position == self._last[0] + 1:
            self._durations.append(now - self._last[1])
        self._last = (position, now)

    def remaining(self, total: int) -> float | None:
        """Seconds until `total` steps are done; None before anything is known."""
        if self._last is None or not self._durations:
            return None
        mean = sum(self._durations) / len(self._durations)
        return (total - self._last[0]) * mean


def time_text(seconds: float | None) -> str:
    """A duration in words."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s left"
    if minutes < 60:
        return f"{minutes} min left"
    return f"{minutes // 60} h {minutes % 60:02d} min left"


@contextmanager
def shown_progress(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """A function of (what is being done, steps done, steps in all), shown as a bar on a terminal.

    Elsewhere, in a log, it writes a line a minute and one whenever something else is being done.
    """
    pace = Pace(clock)
    if not console.is_terminal:
        yield _lines(console, pace, clock)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[left]}"), console=console) as bar:
        task = bar.add_task("reading the data", total=None, left="")

        def show(what: str, done: int, total: int) -> None:
            pace.reach(done)
            left = time_text(pace.remaining(total))
            bar.update(task, description=what, completed=done, total=total, left=left)

        yield show


def _lines(console: Console, pace: Pace, clock: Callable[[], float]) -> Show:
    said: tuple[str, int, float] | None = None

    def show(what: str, done: int, total: int) -> None:
        nonlocal said
        pace.reach(done)
        now = clock()
        if said is not None and said[:2] == (what, done):
            return
        if said is None or said[0] != what or now - said[2] >= _APART or done == total:
            said = (what, done, now)
            left = time_text(pace.remaining(total))
            line = f"{what}: {done} of {total} steps" + (f", {left}" if left else "")
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    return show
