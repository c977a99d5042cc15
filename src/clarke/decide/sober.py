"""Gradients in which what the result does not depend on counts as zero, even times infinity."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.steering import Program, Run

# Backward nodes in which an entry of the input depends on many of the output, of the same shape.
_MIXING: Final = re.compile(
    r"Linalg|Chol|House|Ormqr|Triang|Solve|Mm|mm|Mv|Softmax|Cum|Norm|Cdist|Matrix"
)


def sober_gradient(
    program: Program,
    point: Sequence[torch.Tensor] | None = None,
    beside: Sequence[Sequence[torch.Tensor]] = (),
) -> tuple[torch.Tensor, ...]:
    """The gradient at `point`, where an adjoint that is exactly zero stays zero.

    A branch of `where` that is not taken has the adjoint 0; its operations multiply it by their
    slopes, and ``0 * inf`` and ``0 * nan`` are NaN, although the result does not depend on them.
    Nor does it depend to any order on values that are constant near `point`, such as a point's
    distance to itself: with points `beside` it, at which these have the same values, their
    adjoints count as zero where they are not finite.
    """
    run = program.run(point, pieces=Pieces.TRUE)
    return sober_adjoints(program, run, beside)[0]


def sober_adjoints(
    program: Program, run: Run, beside: Sequence[Sequence[torch.Tensor]] = ()
) -> tuple[tuple[torch.Tensor, ...], dict[int, torch.Tensor]]:
    """The same of a replay that has been made, with the adjoints of all its tensors, by slot."""
    if not run.output.requires_grad:
        return tuple(torch.zeros_like(p) for p in program.point), {}
    handles = [
        t.grad_fn.register_hook(_keep_all_zeros if _mixes(t.grad_fn) else _keep_zeros)
        for t in {id(t.grad_fn): t for t in run.tensors.values()}.values()
        if t.grad_fn is not None
    ]
    if beside:
        others = [program.run(q, pieces=Pieces.TRUE, grad=False).tensors for q in beside]
        for slot, t in run.tensors.items():
            if t.grad_fn is not None and t.is_floating_point():
                handles.append(t.register_hook(_keep_constant(t, [o[slot] for o in others])))
    inner = {
        s: t for s, t in run.tensors.items() if t.grad_fn is not None and t.is_floating_point()
    }
    grads = torch.autograd.grad(
        run.output.sum(), [*run.leaves, *inner.values()], materialize_grads=True
    )
    for handle in handles:
        handle.remove()
    count = len(run.leaves)
    adjoints = {s: g.detach() for s, g in zip(inner, grads[count:], strict=True)}
    return tuple(g.detach() for g in grads[:count]), adjoints


def _mixes(node: Any) -> bool:
    return _MIXING.search(node.name()) is not None


def _keep_all_zeros(inner: Any, outer: Any) -> Any:
    if any(o is not None and bool((o != 0).any()) for o in outer):
        return None
    return tuple(None if v is None else torch.nan_to_num(v, 0.0, 0.0, 0.0) for v in inner)


def _keep_constant(
    value: torch.Tensor, others: Sequence[torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    here = value.detach()
    constant = torch.ones_like(here, dtype=torch.bool)
    for other in others:
        constant &= (other == here) if other.shape == here.shape else torch.tensor(False)

    def repaired(grad: torch.Tensor) -> torch.Tensor:
        return torch.where(constant & ~torch.isfinite(grad), torch.zeros_like(grad), grad)

    return repaired


def _keep_zeros(inner: Any, outer: Any) -> Any:
    if len(outer) != 1 or outer[0] is None:
        return None
    zero = outer[0] == 0

    def repaired(value: torch.Tensor | None) -> torch.Tensor | None:
        if value is None or bool(torch.isfinite(value).all()):
            return value
        if value.shape == zero.shape:
            return torch.where(zero & ~torch.isfinite(value), torch.zeros_like(value), value)
        if bool(zero.all()):
            return torch.nan_to_num(value, 0.0, 0.0, 0.0)
        return value

    return tuple(repaired(v) for v in inner)
