"""What an audit does about a wrong gradient, and which backward calls it looks at."""

from __future__ import annotations

import random
from enum import Enum

from clarke.errors import InputError


class OnWrong(Enum):
    """What happens when a gradient is proved wrong; values are sentences for users."""

    WARN = "warn once for each place, and go on with the gradient of AD"
    RAISE = "raise WrongGradientError, with .grad as it was before the call"
    REPAIR = "put a correct gradient in the place of that of AD, and go on"

    @classmethod
    def parse(cls, given: OnWrong | str) -> OnWrong:
        """A member, or its name in lower case.

        Raises:
            InputError: No such member; names the right spellings.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            for member in cls:
                if member.name.lower() == given:
                    return member
        names = ", ".join(f'"{m.name.lower()}"' for m in cls)
        raise InputError(
            f"on_wrong is {given!r}; it must be one of {names}, a member of clarke.OnWrong, "
            "or a function that takes a Report."
        )


class Schedule:
    """Which backward calls are looked at, and which positive verdicts are confirmed.

    Args:
        every: Look at every `every`-th call.
        sample: Look at a call with this probability (of those that `every` leaves), or None.
        confirm_every: Confirm every so many judged calls by running the program; 0 for none.
        seed: Of the private generator behind `sample`.

    Raises:
        InputError: A number out of range.
    """

    def __init__(self, every: int, sample: float | None, confirm_every: int, seed: int) -> None:
        if type(every) is not int or every < 1:
            raise InputError(f"every is {every!r}; it must be a whole number, 1 or larger.")
        if sample is not None and not 0 < sample <= 1:
            raise InputError(f"sample is {sample!r}; it must be a probability above 0, up to 1.")
        if confirm_every < 0:
            raise InputError(f"confirm_every is {confirm_every!r}; it must be 0 or larger.")
        self._every = every
        self._sample = sample
        self._confirm_every = confirm_every
        self._random = random.Random(seed)  # noqa: S311 - a sample of steps is no secret

    @property
    def looks_at_all(self) -> bool:
        """Whether every call is looked at."""
        return self._every == 1 and self._sample is None

    def looks_at(self, number: int) -> bool:
        """Whether call `number` (from 1) is looked at; asked once for each, in order."""
        if (number - 1) % self._every:
            return False
        return self._sample is None or self._random.random() < self._sample

    def confirms(self, judged: int) -> bool:
        """Whether the `judged`-th judged call (from 1) is confirmed by running the program."""
        return self._confirm_every > 0 and (judged - 1) % self._confirm_every == 0
