"""Custom `torch.autograd.Function`s whose true pieces were declared, as operations of a trace."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture.places import FUNCTION_FILE
from clarke.torch_private import is_behind_the_scenes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType, FrameType


@dataclass(frozen=True)
class FunctionSchema:
    """What the dispatcher would know of a function: its name."""

    name: str
    overload_name: str
    arguments: tuple[Any, ...] = ()
    returns: tuple[Any, ...] = ()
    is_mutable: bool = False


@dataclass(frozen=True, eq=False)
class DeclaredFunction:
    """Stands where a trace has an operator overload.

    Attributes:
        function: The user's class.
        evaluate: The function that its author declared, differentiable by its pieces.
        _schema: Its name, as an operator overload has it.
        namespace, tags, is_view: Likewise.
    """

    function: type[torch.autograd.Function]
    evaluate: Callable[..., torch.Tensor]
    _schema: FunctionSchema
    namespace: str = field(default="function", init=False)
    tags: tuple[torch.Tag, ...] = field(default=(), init=False)
    is_view: bool = field(default=False, init=False)

    def __call__(self, *args: Any) -> torch.Tensor:
        """What replays run: not the user's forward and backward, but what they should be."""
        return self.evaluate(*args)


def running_function(
    declared: Mapping[type, DeclaredFunction],
) -> tuple[DeclaredFunction, tuple[Any, ...], object] | None:
    """The declared function whose forward is running, its arguments, and what marks this run.

    The outermost one. Since torch 2.14 `apply` leaves no frame on the stack: there the forward's
    own frame tells.
    """
    found: tuple[DeclaredFunction, tuple[Any, ...], object] | None = None
    forwards = {forward_code(kind): function for kind, function in declared.items()}
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "apply" and code.co_filename == FUNCTION_FILE:
            function = declared.get(frame.f_locals.get("cls"))  # type: ignore[arg-type]
            if function is not None:
                args = frame.f_locals["args"]
                found = (function, args, args)
        elif code in forwards and not _is_applied_by_python(frame):
            function = forwards[code]
            found = (function, arguments_of(frame, function.function), frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


def forward_code(kind: type) -> CodeType | None:
    """The code of a Function's forward, below its decorators."""
    return _code(kind, "forward")


def _is_applied_by_python(frame: FrameType) -> bool:
    above: FrameType | None = frame.f_back
    while above is not None:
        if above.f_code.co_name == "apply" and above.f_code.co_filename == FUNCTION_FILE:
            return True
        above = above.f_back
    return False


@dataclass(frozen=True)
class Drawn:
    """Where the parts of a custom Function stand that torch.compile drew: it tells no name.

    Attributes:
        forward: Files and lines of the user's functions that forward's operations ran in.
        backward: Likewise.
    """

    forward: frozenset[tuple[str, int]]
    backward: frozenset[tuple[str, int]]

    def is_of(self, kind: type) -> bool | None:
        """Whether they are a class's; None where that is not told."""
        parts = ((self.forward, forward_code(kind)), (self.backward, _code(kind, "backward")))
        if not (self.forward or self.backward) or any(code is None for _, code in parts):
            return None
        met = [_stands_in(places, code) for places, code in parts if places]
        return any(met) if all(met) or not any(met) else None


def _stands_in(places: frozenset[tuple[str, int]], code: Any) -> bool:
    lines = [line for _, _, line in code.co_lines() if line]
    last = max(lines, default=code.co_firstlineno)
    return any(f == code.co_filename and code.co_firstlineno <= n <= last for f, n in places)


def _code(kind: type, name: str) -> CodeType | None:
    return getattr(inspect.unwrap(getattr(kind, name)), "__code__", None)


def arguments_of(frame: FrameType, kind: type[torch.autograd.Function]) -> tuple[Any, ...]:
    """What a forward was called with, without the context."""
    code, names = frame.f_code, frame.f_code.co_varnames
    values = [frame.f_locals[name] for name in names[: code.co_argcount]]
    if code.co_flags & inspect.CO_VARARGS:
        values += frame.f_locals[names[code.co_argcount + code.co_kwonlyargcount]]
    takes_context = kind.setup_context is torch.autograd.Function.setup_context
    return tuple(values[1:] if takes_context else values)


def is_from_custom(tensor: torch.Tensor) -> bool:
    """Whether a tensor is the output of a custom Function.

    Those have Python classes as nodes; autograd's own are built in.
    """
    return any(k.__name__ == "BackwardCFunction" for k in type(tensor.grad_fn).__mro__)


def is_from_compiled(tensor: torch.Tensor) -> bool:
    """Whether a program under torch.compile is among what a tensor was computed by."""
    seen: set[Any] = set()
    todo = [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if is_behind_the_scenes(getattr(node, "_forward_cls", None)):
            return True
        seen.add(node)
        todo += [n for n, _ in node.next_functions]
    return False


def is_result_of(tensor: torch.Tensor, declared: DeclaredFunction) -> bool:
    """Whether autograd takes a tensor for the first result of a function."""
    node = tensor.grad_fn
    made_by = getattr(node, "_forward_cls", None)
    return made_by is declared.function and tensor.output_nr == 0
