"""Custom `torch.autograd.Function`s whose true pieces were declared, as operations of a trace."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clarke.capture.places import FUNCTION_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch


@dataclass(frozen=True)
class FunctionSchema:
    """What the dispatcher would know of a function: its name."""

    name: str
    overload_name: str
    arguments: tuple[Any, ...] = ()
    returns: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class DeclaredFunction:
    """Stands where a trace has an operator overload.

    Attributes:
        function: The user's class.
        evaluate: The function that its author declared, differentiable by its pieces.
        _schema: Its name, as an operator overload has it.
        namespace: Likewise.
    """

    function: type[torch.autograd.Function]
    evaluate: Callable[..., torch.Tensor]
    _schema: FunctionSchema
    namespace: str = field(default="function", init=False)

    def __call__(self, *args: Any) -> torch.Tensor:
        """What replays run: not the user's forward and backward, but what they should be."""
        return self.evaluate(*args)


def running_function(
    declared: Mapping[type, DeclaredFunction],
) -> tuple[DeclaredFunction, tuple[Any, ...]] | None:
    """The declared function whose forward is running, with its arguments; the outermost."""
    found = None
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "apply" and code.co_filename == FUNCTION_FILE:
            function = declared.get(frame.f_locals.get("cls"))  # type: ignore[arg-type]
            if function is not None:
                found = (function, frame.f_locals["args"])
        frame = frame.f_back  # type: ignore[assignment]
    return found


def is_result_of(tensor: torch.Tensor, declared: DeclaredFunction) -> bool:
    """Whether autograd takes a tensor for the first result of a function."""
    node = tensor.grad_fn
    made_by = getattr(node, "_forward_cls", None)
    return made_by is declared.function and tensor.output_nr == 0
