"""Custom `torch.autograd.Function`s whose forward is recorded operator by operator.

Autograd runs a forward with gradients switched off and then takes the author's word for the
derivative. The record goes on inside: what forward computes is part of the program like everything
else, and the author's backward is held against it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture.functions import arguments_of, forward_code
from clarke.capture.places import APPLY, is_transparent
from clarke.torch_private import is_behind_the_scenes, is_of_transform
from clarke.torch_sharded import hands_through

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from types import CodeType, FrameType

    from clarke.capture.live import Slot
    from clarke.capture.trace import Location


class Beside(Enum):
    """What else may be running where gradients are off."""

    PROGRAM = "a program that autograd runs again, as a reentrant checkpoint"
    SEALED = "a Function that stands for itself: its pieces are declared, or torch has compiled it"


class Application:
    """One run of a custom Function while it is recorded.

    Attributes:
        function: The class.
        args: What forward was called with, without the context.
        location: Where it was applied.
        given: Slots of the tensors among `args` that matter, by position.
        outputs: Numbers of the slots of its results, as far as they were read, by position.
        reads: Where forward read numbers into Python.
    """

    __slots__ = ("args", "function", "given", "location", "outputs", "reads")

    def __init__(self, function: type, args: tuple[Any, ...], location: Location) -> None:
        self.function = function
        self.args = args
        self.location = location
        self.given: dict[int, Slot] = {}
        self.outputs: dict[int, int] = {}
        self.reads: list[Location] = []

    @property
    def is_plain(self) -> bool:
        """Whether its derivative is no author's code: it hands values and gradients through."""
        return hands_through(self.function)

    def note_result(self, tensor: torch.Tensor, slot: int) -> bool:
        """Remember which of the results a tensor is; False if it is none."""
        if getattr(tensor.grad_fn, "_forward_cls", None) is not self.function:
            return False
        self.outputs.setdefault(tensor.output_nr, slot)
        return True

    def frozen(self) -> Applied:
        """What a trace keeps of it."""
        return Applied(
            self.function,
            tuple(_kept(a) for a in self.args),
            self.location,
            {i: s.number for i, s in self.given.items()},
            dict(self.outputs),
            tuple(self.reads),
        )


@dataclass(frozen=True, eq=False)
class Applied:
    """A custom Function in a trace; attributes as of `Application`, slots by their numbers."""

    function: type
    args: tuple[Any, ...]
    location: Location
    given: Mapping[int, int]
    outputs: Mapping[int, int]
    reads: tuple[Location, ...]

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.function.__name__


def _kept(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def running(
    declared: Collection[type], forwards: Mapping[int, CodeType]
) -> tuple[type, tuple[Any, ...], object] | Beside:
    """The outermost custom Function that is running: its class, arguments, and what marks this run.

    Args:
        declared: Functions that are recorded as operators.
        forwards: The code of all Functions' forwards, by identity.
    """
    found: tuple[type, tuple[Any, ...], object] | Beside = Beside.PROGRAM
    by_code: dict[int, type] | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        kind: type | None = None
        if code is APPLY:
            kind, args = frame.f_locals["cls"], frame.f_locals["args"]
            run: object = args
        elif APPLY is None and id(code) in forwards:
            by_code = by_code or _by_code()
            kind = _of_context(frame) or by_code.get(id(code))
            args = run = frame
        if kind is not None and not is_transparent(kind):
            if kind in declared or is_behind_the_scenes(kind):
                return Beside.SEALED
            given = args if isinstance(args, tuple) else arguments_of(frame, kind)
            # What torch.func makes of a Function is applied to plain tensors further in.
            if not any(map(is_of_transform, given)):
                found = (kind, given, run)
        frame = frame.f_back
    return found


def _of_context(frame: FrameType) -> type | None:
    """The Function whose context a forward was given: one that inherits it has its code, too."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    context = frame.f_locals.get(names[0]) if names else None
    kind = getattr(type(context), "_forward_cls", None)
    return kind if isinstance(kind, type) else None


def _by_code() -> dict[int, type]:
    found: dict[int, type] = {}
    pending: list[type] = [torch.autograd.Function]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        found.setdefault(id(forward_code(kind)), kind)
    return found
