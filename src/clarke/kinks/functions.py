"""Declare what a custom `torch.autograd.Function` computes: its switching functions and pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import DeclaredFunction, FunctionSchema
from clarke.errors import RegistrationError
from clarke.kinks.model import Call, Hazard
from clarke.kinks.regions import RegionRule
from clarke.kinks.registry import default_registry
from clarke.numerics import (
    DECLARED_ASIDE,
    DECLARED_CLEAR,
    OWN_ROUNDINGS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord

    Parts = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]

_ROUNDINGS = 256


@dataclass(frozen=True)
class FunctionRule(RegionRule):
    """The declared pieces of one Function; its own backward gives AD's weights.

    Attributes:
        function: The class.
    """

    function: type[torch.autograd.Function] = torch.autograd.Function

    def _measure(
        self,
        call: Call,
        shape: torch.Size,
        elements: torch.Tensor,
        members: torch.Tensor,
        owner: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[Hazard, torch.Tensor], torch.Tensor | None]:
        own = Call(self.function.apply, call.args, call.kwargs)
        try:
            return super()._measure(own, shape, elements, members, owner)
        except Exception:  # noqa: BLE001 - a forward or backward of the user's, on part of its input
            # What it gives at single elements is unknown; the gradient itself will be judged.
            first = torch.cat([torch.tensor([True]), owner[1:] != owner[:-1]])
            return first.to(torch.float64), {Hazard.IMPROPER: owner[first]}, None


def register_function(
    function: type[torch.autograd.Function],
    *,
    pieces: Parts | None = None,
    split: Parts | None = None,
    surrogate: bool = False,
) -> None:
    """Declare what a custom `torch.autograd.Function` is, where its forward does not tell.

    What forward computes with PyTorch's own operations clarke sees by itself, and holds backward
    against it. Two things it cannot see: that backward is *meant* to be another derivative than the
    true one (`surrogate=True`: gradients through it are `SURROGATE`), and what a forward computes
    elsewhere (in NumPy, in a kernel). Of an elementwise one, `pieces` says that.

    Declared pieces are compared with the value that forward computed, at the point and beside it;
    where the two differ the verdict is UNDECIDED.

    Args:
        function: The class. Its forward takes tensors and numbers and returns one tensor.
        pieces: Takes forward's arguments (without `ctx`) and returns the pieces, each a tensor of
            the shape of the result, written with differentiable operations.
        split: Takes the same and returns the switching functions: piece ``r`` is active where the
            first ``r`` are positive and the others are not. By default there is one piece.
        surrogate: Its backward is no derivative of its forward, on purpose.

    Raises:
        RegistrationError: Not a Function, one that has been declared already, or not exactly one
            of `pieces` and `surrogate`.
    """
    given: Any = function
    if not (isinstance(given, type) and issubclass(given, torch.autograd.Function)):
        raise RegistrationError(
            f"register_function takes a subclass of torch.autograd.Function, not {function!r}."
        )

    if (pieces is not None) is bool(surrogate) or (surrogate and split is not None):
        raise RegistrationError(
            "register_function takes either surrogate=True, or the pieces of the function (with "
            "their split)."
        )
    if pieces is None:
        default_registry().add_surrogate(given)
        return

    def splits(*args: Any) -> tuple[torch.Tensor, ...]:
        return () if split is None else _several(split(*args))

    def evaluate(*args: Any) -> torch.Tensor:
        found = _several(pieces(*args))
        out = found[0]
        for switch, piece in zip(splits(*args), found[1:], strict=True):
            out = torch.where(switch > 0, piece, out)
        return out

    registry = default_registry()
    schema = FunctionSchema(f"function::{function.__name__}", str(len(registry.functions)))
    registry.add_function(
        DeclaredFunction(function, evaluate, schema),
        FunctionRule(
            split=lambda call: splits(*call.args),
            pieces=lambda call: _several(pieces(*call.args)),
            jumps=True,
            function=function,
        ),
    )


def _several(found: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


def misdeclared(op: OpRecord, rule: FunctionRule) -> str:
    """Why the declared pieces of a recorded Function are not what it computes; empty if they are.

    Compares values only, at the recorded arguments and at arguments beside them that are clear of
    the switching functions' zeros.
    """
    args = tuple(op.kept.get(i, a) for i, a in enumerate(op.args))
    if not op.outputs:
        return "returned a tensor that clarke did not see it make"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        try:
            recorded = op.kept_outputs.get(0)
            if recorded is None:  # let go: a proof runs forward again
                recorded = rule.function.apply(*args)
            wrong = _difference(rule, op, args, recorded, clear=False)
            for _ in range(2 if not wrong else 0):
                moved = tuple(_beside(a, generator) for a in args)
                wrong = wrong or _difference(
                    rule, op, moved, rule.function.apply(*moved), clear=True
                )
        except Exception as error:  # noqa: BLE001 - the user's code, on arguments of clarke's
            return (
                f"or its declared pieces failed beside the point ({type(error).__name__}: {error})"
            )
    return wrong


def _beside(value: Any, generator: torch.Generator) -> Any:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
    return value + DECLARED_ASIDE * noise * value.abs().clamp(min=1)


def _difference(
    rule: FunctionRule, op: OpRecord, args: tuple[Any, ...], value: Any, *, clear: bool
) -> str:
    """Where a value of forward is not that of the declared pieces, in words."""
    if not isinstance(value, torch.Tensor):
        return "returns several results; pieces can be declared for one"
    call = Call(op.func, args, op.kwargs)
    declared = op.func.evaluate(*args)
    if declared.shape != value.shape:
        return (
            f"has declared pieces of shape {tuple(declared.shape)}, but returned one of "
            f"{tuple(value.shape)}"
        )
    compared = torch.ones(value.shape, dtype=torch.bool)
    for switch in rule.split(call) if clear else ():
        compared &= (switch.abs() > DECLARED_CLEAR * DECLARED_ASIDE).expand(value.shape)
    tensors = [a for a in (*args, value) if isinstance(a, torch.Tensor) and a.is_floating_point()]
    size = max(
        (float(torch.nan_to_num(a.abs(), 0.0, 0.0, 0.0).max()) for a in tensors if a.numel()),
        default=0.0,
    )
    room = _ROUNDINGS * torch.finfo(value.dtype).eps * max(size, 1.0)
    same = ((declared - value).abs() <= room) | (declared == value)
    same |= torch.isnan(declared) & torch.isnan(value)
    apart = compared & ~same
    if not bool(apart.any()):
        return ""
    gap = float((declared - value)[apart].abs().max())
    where = "beside the point" if clear else "at the point"
    return f"computes another value than its declared pieces {where} (they differ by {gap:.3g})"


def backward_differs(op: OpRecord, rule: FunctionRule) -> bool:
    """Whether the Function's own backward, at the recorded arguments, is not that of its pieces."""
    args = tuple(op.kept.get(i, a) for i, a in enumerate(op.args))
    places = [i for i in sorted(op.varied) if i in op.kept]
    found = []
    with torch.enable_grad():
        # The declared derivative is known in float64; its own is as exact as its type allows.
        for run, wide in ((rule.function.apply, False), (op.func.evaluate, True)):
            given = tuple(_widened(a) if wide else a for a in args)
            inputs = {i: given[i].detach().clone().requires_grad_() for i in places}
            out = run(*(inputs.get(i, a) for i, a in enumerate(given)))
            leaves = list(inputs.values())
            found.append(
                torch.autograd.grad(out.sum(), leaves, materialize_grads=True)
                if out.requires_grad
                else tuple(torch.zeros_like(x) for x in leaves)
            )
    return any(
        not torch.allclose(
            a.to(b.dtype), b, rtol=OWN_ROUNDINGS * torch.finfo(a.dtype).eps, atol=0, equal_nan=True
        )
        for a, b in zip(*found, strict=True)
    )


def _widened(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(torch.float64) if floating else value
