"""The time that is spent on one backward call."""

from __future__ import annotations

import time

from clarke.deadline import UNLIMITED, Deadline


class Work:
    """Counts the parts of clarke's own work on a call; a context manager around each part.

    Args:
        granted: Seconds for all parts together; None for no limit.

    Attributes:
        deadline: Of the part that is under way: what the earlier ones have left.
        seconds: What the parts took.
        interrupted: Something that is no error of clarke's ended one (Ctrl-C).
    """

    def __init__(self, granted: float | None) -> None:
        self._granted = granted
        self._began = 0.0
        self._left: float | None = None  # as the deadline counts; None before the first part
        self.deadline = UNLIMITED
        self.seconds = 0.0
        self.interrupted = False

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        if self._left is None:
            self.deadline = Deadline.after(self._granted)
        else:
            self.deadline.go_on(self._left)
        self.deadline.__enter__()

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self.interrupted = True
        self.seconds += time.perf_counter() - self._began
        self._left = self.deadline.left
        self.deadline.__exit__(*exc)
