"""A time limit that is passed down a call and tested wherever work is done; memory that is gone."""

from __future__ import annotations

import functools
import math
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from clarke.errors import ClarkeError, InputError, OutOfMemoryError, OutOfTimeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    Clock = Callable[[], float]

_WORTH_TELLING = 0.05  # seconds of a rung from which a message lists it
# Python modules loaded between two questions from which the time between them does not count: what
# computes loads none, and what loads comes with hundreds.
MODULES_LOADED = 20


class Deadline:
    """The moment at which a call has to have an answer, and what it has done so far.

    A call makes one of its `seconds=` and hands it down; whatever may take long asks it. There is
    no clock in the background and no signal: an answer in time is a matter of asking often, and of
    not beginning what cannot be interrupted and would take too long (`afford`). What Python loads
    meanwhile, once in a process, is not the call's work and does not count.

    The call is a ``with`` block around it. Behind the block there is no limit any more: what
    outlives the call, such as a certificate that is verified later, may take its time.

    Attributes:
        at: Reading of the clock at which time is up; infinity for no limit.
        seconds: What was granted, for messages.
    """

    def __init__(
        self,
        at: float,
        seconds: float,
        clock: Clock = time.monotonic,
        parent: Deadline | None = None,
    ) -> None:
        self.at = at
        self.seconds = seconds
        self._clock = clock
        self._began = clock()
        self._parent = parent
        # What is under way, outermost first; and the outermost that are over, with their seconds.
        self._under_way: list[str] = [] if parent is None else parent._under_way  # noqa: SLF001 - its own kind
        self._tried: dict[str, float] = {} if parent is None else parent._tried  # noqa: SLF001 - as above
        self._loaded: _Loaded = _Loaded(self._began) if parent is None else parent._loaded  # noqa: SLF001 - as above

    @classmethod
    def after(cls, seconds: float | None, clock: Clock = time.monotonic) -> Deadline:
        """The deadline `seconds` from now; None for no limit.

        Raises:
            InputError: The limit is not a positive number.
        """
        check_seconds(seconds)
        if seconds is None:
            return cls(math.inf, math.inf, clock)
        return cls(clock() + seconds, float(seconds), clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.at = math.inf

    @property
    def left(self) -> float:
        """Seconds left; zero or less when time is up."""
        parent = self._parent
        if math.isinf(self.at) or (parent is not None and math.isinf(parent.at)):
            return math.inf
        return self.at - self._clock()

    @property
    def passed(self) -> bool:
        """Whether time is up."""
        return self.left <= 0

    @property
    def spent(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._began

    def extend(self, seconds: float) -> None:
        """Put the end off, for what happens once in a process and is not the call's work."""
        self.at += seconds
        if self._parent is not None:
            self._parent.extend(seconds)

    def go_on(self, left: float) -> None:
        """Hold again, for so many seconds, what is not the call's work being over."""
        now = self._clock()
        self.at = now + left
        self._loaded = _Loaded(now)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What the block takes does not count."""
        before = self._clock()
        try:
            yield
        finally:
            self.extend(self._clock() - before)

    def part(self, share: float) -> Deadline:
        """A deadline after that share of the time left, for one rung among several."""
        if math.isinf(self.at):
            return self
        at = self._clock() + share * max(self.left, 0.0)
        return Deadline(at, self.seconds, self._clock, self)

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """Name what the block does, for the message should time run out in it.

        Args:
            doing: As it completes "Time ran out while ...".
        """
        if math.isinf(self.at):
            yield
            return
        before = self._clock()
        self._under_way.append(doing)
        try:
            yield
        finally:
            self._under_way.pop()
            if not self._under_way:
                self._tried[doing] = self._tried.get(doing, 0.0) + self._clock() - before

    def ask(self, doing: str = "", *values: object) -> None:
        """Go on, or stop with what was being done.

        Args:
            doing: What is under way, as it completes "Time ran out while ...".
            values: What to fill in for its ``{}``: formatted only when it is needed.

        Raises:
            OutOfTimeError: Time is up.
        """
        if math.isinf(self.at):
            return
        self.extend(self._loaded.seconds(self._clock()))
        if self.left <= 0:
            raise OutOfTimeError(self._message(_filled(doing, values)))

    def afford(self, seconds: float, doing: str, *values: object) -> None:
        """Go on, or stop before work that cannot be interrupted and takes longer than is left.

        Args:
            seconds: A low estimate of what it takes.
            doing: What it is, as for `ask`.
            values: As for `ask`.

        Raises:
            OutOfTimeError: It would end too late.
        """
        self.ask(doing, *values)
        left = self.left
        if seconds >= left:
            more = "" if math.isinf(seconds) else f"about {seconds:.2g} s more, "
            what = f"{_filled(doing, values)} ({more}{max(left, 0.0):.2g} s left)"
            raise OutOfTimeError(self._message(what))

    def _message(self, doing: str) -> str:
        what = ": ".join([*self._under_way, *([doing] if doing else [])]) or "judging"
        earlier = ", ".join(
            f"{name} ({spent:.2g} s)"
            for name, spent in self._tried.items()
            if spent >= _WORTH_TELLING
        )
        return (
            f"Time ran out ({self.seconds:g} s) while {what}."
            + (f" Before that: {earlier}." if earlier else "")
            + " Grant more with seconds=, or judge a smaller part of the program."
        )


class _Loaded:
    """Tells how much of the time since the last question went into loading modules.

    Torch loads its compiler (800 modules, 3 s) on the first use of some rules, and
    numba compiles its loops when they are first needed.
    """

    def __init__(self, now: float) -> None:
        self._modules = len(sys.modules)
        self._asked = now

    def seconds(self, now: float) -> float:
        """All of it if many modules were loaded, else nothing."""
        modules, asked = self._modules, self._asked
        self._modules, self._asked = len(sys.modules), now
        return now - asked if self._modules - modules > MODULES_LOADED else 0.0


def _filled(doing: str, values: tuple[object, ...]) -> str:
    return doing.format(*values) if values else doing


def check_seconds(seconds: object) -> None:
    """Refuse what is no time limit.

    Raises:
        InputError: The limit is neither None nor a positive number.
    """
    if seconds is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
        raise InputError(
            f"A time limit has to be a positive number of seconds, not {seconds!r}; "
            "None stands for no limit."
        )


class Timed(Protocol):
    """What carries the deadline of the call that it was made for."""

    @property
    def deadline(self) -> Deadline:
        """The deadline."""


_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T", bound=Timed)


def rung(
    doing: str,
) -> Callable[[Callable[Concatenate[_T, _P], _R]], Callable[Concatenate[_T, _P], _R]]:
    """Name a function for the message of `Deadline`; its first argument carries the deadline.

    Args:
        doing: As it completes "Time ran out while ...".
    """

    def named(function: Callable[Concatenate[_T, _P], _R]) -> Callable[Concatenate[_T, _P], _R]:
        @functools.wraps(function)
        def timed(first: _T, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            deadline = first.deadline
            with deadline.during(doing):
                deadline.ask()
                return function(first, *args, **kwargs)

        return timed

    return named


# How allocators of torch and numpy say that they have no more, on all systems and devices.
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "size calculation overflow")


def within_memory(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function of clarke's own end without an answer where there is not enough memory.

    What may become large is to be counted before it is made; this is for what was not.

    Raises:
        OutOfMemoryError: An allocation failed.
    """

    @functools.wraps(function)
    def bounded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            said = str(error).lower()
            if isinstance(error, ClarkeError) or not (
                isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY)
            ):
                raise
            failure = OutOfMemoryError(
                f"There is not enough memory to analyse this program ({_first_line(error)}). Judge "
                "a smaller part of it, or fewer elements."
            )
        # Not from the error: its frames hold what was allocated before.
        raise failure

    return bounded


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


UNLIMITED = Deadline(math.inf, math.inf)
