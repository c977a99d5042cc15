"""Keep a recorder from recording for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from clarke.torch_private import (
    is_entered,
    is_on_top,
    modes,
    put_on,
    step_off,
    step_on,
    take_off,
)

if TYPE_CHECKING:
    from clarke.capture.recorder import Recorder


class Aside:
    """Keeps a recorder from recording; a context manager, or `start` and `stop`.

    Dropped before its end, it does nothing: a generator would step back on whenever the garbage
    collector comes by.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._stepped_off = False

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Record nothing from here on."""
        self._recorder.paused = True
        if is_on_top(self._recorder):
            self._stepped_off = True
            step_off()

    def stop(self) -> None:
        """Record again; also where it does."""
        if self._stepped_off and not is_entered(self._recorder):
            step_on(self._recorder)
        self._stepped_off = False
        self._recorder.paused = False


def without(kind: type) -> contextlib.AbstractContextManager[object]:
    """Takes the recorders of a kind off the modes of its thread: what runs is no part of a program.

    Unlike after `Rest` they go on as they were.
    """
    stack = contextlib.ExitStack()
    for mode in modes():
        if type(mode) is kind:
            stack.callback(put_on, mode, take_off(mode))
    return stack


class Rest:
    """Takes a recorder off the modes of its thread for many calls, from `start` to `stop`.

    Nothing then costs anything. What the record knows of tensors may no longer hold afterwards, so
    it begins anew: a graph made before, or meanwhile, is one that was not seen.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._below = 0

    def start(self) -> None:
        """Rest; also where it does."""
        if not self._recorder.rests and is_entered(self._recorder):
            self._recorder.rests = True
            self._below = take_off(self._recorder)

    def stop(self) -> None:
        """Record again; also where it does."""
        if self._recorder.rests:
            self._recorder.begin_anew()
            put_on(self._recorder, self._below)
            self._recorder.rests = False
