"""What a call changes of torch is put back whatever comes, KeyboardInterrupt included.

An exception that comes from outside may hit a ``finally`` or an ``__exit__`` at its first step, of
torch's own ones too. So the public calls put everything back twice: an interruption disturbs one
of the two at most. What is put back has to bear that.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from clarke.torch_private import ThreadState

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


class _Undo:
    """What has to be done when a call ends, last first; each may be done more than once."""

    def __init__(self) -> None:
        self._state = ThreadState()
        self.actions: list[Callable[[], Any]] = []

    def run(self) -> None:
        # With the user's modes still below: what is put back is nobody's program.
        self._state.restore()
        for action in reversed(self.actions):
            action()
        if self.actions:
            self._state.restore()


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
