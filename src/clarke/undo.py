"""What a call changes of torch is put back whatever comes, KeyboardInterrupt included.

An exception that comes from outside may hit a ``finally`` or an ``__exit__`` at its first step, of
torch's own ones too. So the public calls put everything back twice: an interruption disturbs one
of the two at most. What is put back has to bear that.
"""

from __future__ import annotations

import contextlib
import functools
import io
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from clarke.torch_private import ThreadState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


class _Undo:
    """What has to be done when a call ends, last first; each may be done more than once."""

    def __init__(self) -> None:
        self._state = ThreadState()
        self.actions: list[Callable[[], Any]] = []
        self._done = False

    def run(self) -> None:
        if self._done:
            return
        # With the user's modes still below: what is put back is nobody's program.
        self._state.restore()
        failures = []
        for action in reversed(self.actions):
            try:
                action()
            except Exception as error:  # noqa: BLE001 - the others have to be done, too
                failures.append(error)
        if self.actions:
            self._state.restore()
        self._done = True  # to the end: nothing is left for a second time
        if failures:
            raise failures[0]


_running: Final[ContextVar[_Undo | None]] = ContextVar("clarke_undo", default=None)


def at_the_end(action: Callable[[], Any]) -> None:
    """Do something when the call that `leaves_no_trace` ends; nothing where there is none.

    Args:
        action: What to do; also done where it has been done already.
    """
    undo = _running.get()
    if undo is not None:
        undo.actions.append(action)


def leaves_no_trace(function: Callable[P, T]) -> Callable[P, T]:
    """Let a call put back the thread's modes, and whatever it hands to `at_the_end`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True  # pytest shows who called
        undo, before = _Undo(), _running.get()
        try:
            try:
                _running.set(undo)
                return function(*args, **kwargs)
            finally:
                undo.run()
                _running.set(before)
        finally:
            undo.run()
            _running.set(before)

    return call


def contextmanager(
    function: Callable[P, Iterator[T]],
) -> Callable[P, contextlib.AbstractContextManager[T]]:
    """As contextlib's, for what changes something and puts it back.

    An interrupt on contextlib's own lines leaves the generator waiting, and the garbage collector
    would have it put back later, in the middle of something else. Here it ends with the call.
    """
    manager = contextlib.contextmanager(function)

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> contextlib.AbstractContextManager[T]:
        found: Any = manager(*args, **kwargs)
        at_the_end(found.gen.close)
        opened: contextlib.AbstractContextManager[T] = found
        return opened

    return make


class Door(io.IOBase):
    """Has an `__exit__` that begins in C, and what that does cannot be kept from being done.

    A ``with`` block calls its `__exit__` once. Were that a function of Python's, an interrupt on
    its first step would leave everything as it is. `io.IOBase` has one of C's, which calls `close`;
    and closing a generator, C's too, goes on inside its ``finally``, with a second one behind it.
    """

    @property
    def closed(self) -> bool:
        """True: there is nothing to be done about one that is dropped."""
        return True

    def arm(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """Say what the next `__exit__` does.

        Args:
            begin: Done first, once.
            end: Done in any case; twice, where it was interrupted. It has to bear that.
        """
        # Held from the start: left to the garbage collector, it would end something later.
        self._waiting = _waiting(begin, end)
        self.close = self._waiting.close  # type: ignore[method-assign]
        next(self._waiting)


def _waiting(begin: Callable[[], object], end: Callable[[], object]) -> Generator[None, None, None]:
    try:
        try:
            try:
                yield
            finally:
                begin()
        finally:
            end()
    finally:
        end()
