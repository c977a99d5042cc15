"""What an audit does about a wrong gradient, and which backward calls it looks at."""

from __future__ import annotations

import random
import warnings
from enum import Enum
from typing import TYPE_CHECKING

from clarke.audit.engine import levels_up_to
from clarke.capture import all_finite
from clarke.errors import InputError, WrongGradientError, WrongGradientWarning
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from clarke.capture import Location
    from clarke.report import Report


SUM = "sum that .grad holds after the call"


class OnWrong(Enum):
    """What happens when a gradient is proved wrong; values are sentences for users."""

    WARN = "warn once for each place, and go on with the gradient of AD"
    RAISE = "raise WrongGradientError, with .grad as it was before the call"
    REPAIR = "put a correct gradient in the place of that of AD, and go on"

    @classmethod
    def parse(cls, given: OnWrong | str, name: str = "on_wrong") -> OnWrong:
        """A member, or its name in lower case.

        Args:
            given: What the user wrote.
            name: Of the argument.

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
            f"{name} is {given!r}; it must be one of {names}, a member of clarke.OnWrong, "
            "or a function that takes a Report."
        )


class Answer:
    """What the user asked for about one kind of gradient that is no good.

    Args:
        given: A member of `OnWrong`, its name, a function that takes a `Report`, or None.
        name: Of the argument.
        says: What is the matter, in messages.

    Attributes:
        policy: The member; None for a function, or for nothing.
    """

    def __init__(
        self, given: OnWrong | str | Callable[[Report], None] | None, name: str, says: str
    ) -> None:
        self.policy: OnWrong | None = None
        self._callback: Callable[[Report], None] | None = None
        if callable(given) and not isinstance(given, OnWrong):
            self._callback = given
        elif given is not None:
            self.policy = OnWrong.parse(given, name)
        self._says = says
        self._warned_at: set[tuple[str, int]] = set()

    def give(self, report: Report, location: Location, *, repaired: bool, what: str = "") -> None:
        """Do it, where the gradient was not repaired; `what` says which that is."""
        why = report.reason.removeprefix("WRONG: ")
        empty = report.verdict is Verdict.NONFINITE and all_finite(report.gradient)
        what = what or ("value differentiated" if empty else "gradient computed")
        message = f"The {what} at {location} is {self._says}: {why}"
        if report.cures:
            message += f" Instead: {report.cures[0]}"
        place = (location.file, location.line)
        if self._callback is not None:
            self._callback(report)
        elif self.policy is OnWrong.RAISE:
            raise WrongGradientError(f"{message}\n{report}", report)
        elif self.policy is not None and not repaired and place not in self._warned_at:
            self._warned_at.add(place)
            level = levels_up_to(*place)
            warnings.warn(message, WrongGradientWarning, stacklevel=level)


class Answers:
    """What the user asked for about wrong gradients, and about NaN and infinity."""

    def __init__(
        self,
        on_wrong: OnWrong | str | Callable[[Report], None],
        on_nonfinite: OnWrong | str | Callable[[Report], None] | None,
    ) -> None:
        if on_wrong is None:  # which has no meaning here
            OnWrong.parse(on_wrong)
        self._wrong = Answer(on_wrong, "on_wrong", "wrong")
        self._nonfinite = Answer(on_nonfinite, "on_nonfinite", "not finite")

    @property
    def undoes(self) -> bool:
        """Whether what ``.grad`` held before a call may be needed again."""
        asked = (self._wrong.policy, self._nonfinite.policy)
        return OnWrong.RAISE in asked or self._nonfinite.policy is OnWrong.REPAIR

    def to(self, verdict: Verdict, gradient: Sequence[torch.Tensor]) -> Answer | None:
        """The answer to a verdict on a gradient, if it has one."""
        if verdict is Verdict.NOT_CLARKE:
            return self._wrong
        if verdict is Verdict.NOT_LIPSCHITZ and all_finite(gradient):
            return None  # a step: its gradient is a number
        no_number = verdict in (Verdict.NONFINITE, Verdict.NOT_LIPSCHITZ)
        return self._nonfinite if no_number else None


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
        self._drawn: dict[int, bool] = {}  # of calls that are still to come
        self._last = 0

    @property
    def looks_at_all(self) -> bool:
        """Whether every call is looked at."""
        return self._every == 1 and self._sample is None

    def looks_at(self, number: int) -> bool:
        """Whether call `number` (from 1) is looked at; may be asked ahead, and again."""
        if self._sample is None:
            return (number - 1) % self._every == 0
        while self._last < number:
            self._last += 1
            left = (self._last - 1) % self._every == 0
            self._drawn[self._last] = left and self._random.random() < self._sample
        for past in [n for n in self._drawn if n < number - 1]:
            del self._drawn[past]
        return self._drawn[number]

    def confirms(self, judged: int) -> bool:
        """Whether the `judged`-th judged call (from 1) is confirmed by running the program."""
        return self._confirm_every > 0 and (judged - 1) % self._confirm_every == 0
