"""A time limit that is passed down a call and tested wherever work is done."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from clarke.errors import InputError, OutOfTimeError


@dataclass(frozen=True)
class Deadline:
    """The moment at which a call has to have an answer.

    A call makes one of its `seconds=` and hands it down; whatever may take long asks it. There is
    no clock in the background and no signal: an answer in time is a matter of asking often.

    Attributes:
        at: Reading of `time.monotonic` at which time is up; infinity for no limit.
        seconds: What was granted, for messages.
    """

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The deadline `seconds` from now; None for no limit.

        Raises:
            InputError: The limit is not a positive number.
        """
        if seconds is None:
            return UNLIMITED
        if not seconds > 0:
            raise InputError(
                f"A time limit has to be a positive number of seconds, not {seconds!r}; "
                "None stands for no limit."
            )
        return cls(time.monotonic() + seconds, float(seconds))

    @property
    def left(self) -> float:
        """Seconds left; zero or less when time is up."""
        return self.at - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether time is up."""
        return self.left <= 0

    def part(self, share: float) -> Deadline:
        """A deadline after that share of the time left, for one rung among several."""
        if math.isinf(self.at):
            return self
        left = max(self.left, 0.0)
        return Deadline(time.monotonic() + share * left, share * left)

    def ask(self, doing: str) -> None:
        """Go on, or stop with what was being done.

        Args:
            doing: What is under way, as it completes "Time ran out while ...".

        Raises:
            OutOfTimeError: Time is up.
        """
        if self.passed:
            raise OutOfTimeError(
                f"Time ran out ({self.seconds:g} s) while {doing}. "
                "Grant more with seconds=, or judge a smaller part of the program."
            )


UNLIMITED = Deadline(math.inf, math.inf)
