"""The components of a function's outputs, judged together where they can be."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref, all_finite
from clarke.check import check
from clarke.constraints import find_relevant
from clarke.constraints.relevance import Mixing
from clarke.decide.detached import numbers_read
from clarke.decide.hazards import obstacle
from clarke.decide.witnessed import Witnessed
from clarke.errors import ClarkeError, InputError
from clarke.numerics import GRADCHECK_ROWS
from clarke.prepare import prepared
from clarke.steering import Program, analyse
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clarke.report import Report
    from clarke.steering import Nudges


@dataclass(frozen=True, eq=False)
class Row:
    """One component of the output or several, with the verdict on their gradients.

    `variables` are the positions among the inputs of what it was differentiated with respect to.
    """

    indices: tuple[int, ...]
    report: Report
    variables: tuple[int, ...]


class Rows:
    """The components of the differentiable outputs, numbered in order.

    Attributes:
        arguments: What they are computed from; those that require gradients are leaves.
        count: How many components there are.
    """

    def __init__(
        self, func: Callable[..., Any], arguments: tuple[Any, ...], seconds: float | None
    ) -> None:
        self._func = func
        self._seconds = seconds
        # clarke differentiates leaves; torch's test also takes inputs that were computed.
        fresh: dict[int, torch.Tensor] = {}
        self.arguments = tuple(
            fresh.setdefault(id(a), a.detach().requires_grad_()) if differentiable(a) else a
            for a in arguments
        )
        # By position: in torch's forward mode no output says that it requires a gradient.
        outputs = self._outputs(self.arguments)
        self._chosen = [
            i for i, o in enumerate(outputs) if isinstance(o, torch.Tensor) and o.requires_grad
        ]
        chosen = [outputs[i] for i in self._chosen]
        if not chosen or any(o.is_complex() or o.layout != torch.strided for o in chosen):
            raise InputError("Only dense real outputs that require a gradient are judged.")
        self.count = sum(o.numel() for o in chosen)

    def _outputs(self, arguments: tuple[Any, ...]) -> list[Any]:
        with torch.enable_grad():
            found = self._func(*arguments)
        return list(found) if isinstance(found, (tuple, list)) else [found]

    def _flat(self, arguments: tuple[Any, ...]) -> torch.Tensor:
        outputs = self._outputs(arguments)
        return torch.cat([outputs[i].reshape(-1) for i in self._chosen])

    def only(self, indices: Sequence[int]) -> Callable[..., torch.Tensor]:
        """The function with the given components alone."""
        chosen = torch.tensor(indices, dtype=torch.int64)
        return lambda *arguments: self._flat(arguments)[chosen]

    def is_off_kinks(self, *, passed: bool) -> bool:
        """Whether nothing at the point is beyond torch's own test: a look at one recorded run.

        No kink is touched, no formula holds for some programs only, and no number went into Python.

        Args:
            passed: Torch's test has passed: of what was detached, or computed in a custom Function,
                differences have then said the same as autograd.
        """
        try:
            with prepared(self.mixed, self.arguments, None, self._seconds) as run:
                trace = run.trace
                held = trace.applied or any(e.stopped for e in trace.externals.values())
                if numbers_read(trace) or (held and not passed) or not all_finite(run.gradient):
                    return False
                analysis = analyse(trace, run.registry, run.deadline)
                blocked = obstacle(analysis, sees_values=True)
                return blocked is None and not (analysis.count or analysis.doubtful)
        except (ClarkeError, RuntimeError):
            return False

    def together(self, indices: Sequence[int]) -> Row | None:
        """The verdict on one random sum of some components; None if no input reaches them.

        A component alone is not weighted, so that the report shows its own gradient.
        """
        mixed = self._sum_of(indices)
        used = self._used(mixed)
        if not used:
            return None
        report = check(mixed, self.arguments, wrt=self._leaves(used), seconds=self._seconds)
        return Row(tuple(indices), report, used)

    def judged(self, whole: Row) -> Iterator[Row]:
        """Verdicts on the components that relevant kinks reach, on many at once where possible.

        Args:
            whole: What `together` says of all components.
        """
        reached = self._reached(whole)
        todo: list[tuple[int, ...]] = [reached] if reached else []
        while todo:
            part = todo.pop()
            row = whole if len(part) == self.count else self.together(part)
            if row is None:
                continue
            if len(part) == 1 or row.report.verdict is Verdict.SMOOTH:
                yield row
                continue
            settled = self._settled(row) if row.report.correct else ()
            if settled:
                yield replace(row, indices=settled)
            rest = tuple(sorted(set(part) - set(settled)))
            half = (len(rest) + 1) // 2
            todo += [p for p in (rest[half:], rest[:half]) if p]

    def mixed(self, *arguments: Any) -> torch.Tensor:
        """A sum of all components, with random positive weights."""
        return self._sum_of(range(self.count))(*arguments)

    def _sum_of(self, indices: Sequence[int]) -> Callable[..., torch.Tensor]:
        chosen = torch.tensor(indices, dtype=torch.int64)

        def mixed(*arguments: Any) -> torch.Tensor:
            flat = self._flat(arguments)[chosen]
            weights = self._weights[chosen] if len(chosen) > 1 else torch.ones(1)
            return (flat * weights.to(flat)).sum()

        return mixed

    @cached_property
    def _weights(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(self.count, generator=generator, dtype=torch.float64) + 0.5

    def _reached(self, whole: Row) -> tuple[int, ...]:
        """The components that a relevant kink reaches: the others are smooth here.

        One replay with a zero leaf at every touched kink tells: which components change with
        them, to first order, along a random direction of the relevant ones.
        """
        every = tuple(range(self.count))
        try:
            with prepared(
                self.mixed, self.arguments, self._leaves(whole.variables), self._seconds
            ) as run:
                analysis = analyse(run.trace, run.registry, run.deadline)
                program = Program(analysis, run.slots, deadline=run.deadline)
                if run.trace.applied or obstacle(analysis, sees_values=True) is not None:
                    return every
                relevance = find_relevant(program, torch.Generator().manual_seed(0), Mixing.ALL)
                if relevance.lost_masks or relevance.hazards:
                    return every
                shown = program.run(probe=True, nudge=True)
                if shown.mask_uses or shown.nudges is None or shown.nudges.spread:
                    return every
                flat = shown.tensors[_summed(program)]
                found = _moved_by(flat, shown.nudges, relevance.relevant)
                return tuple(found.nonzero().squeeze(1).tolist())
        except (ClarkeError, RuntimeError):
            return every

    def _settled(self, row: Row) -> tuple[int, ...]:
        """Those of a row's components whose gradients the proof for their sum proves as well.

        Directions that select pieces do so for all components at once: if the weighted Jacobians
        of these selections add up to autograd's in a row, that row is proved.
        """
        proof = row.report.certificate
        if proof is None or not isinstance(proof.argument, Witnessed):
            return ()
        if not all(len(w.rows) for w in proof.witnesses):
            return ()
        try:
            own = _jacobian(self.only(row.indices)(*self.arguments), self._leaves(row.variables))
            total, size, program = torch.zeros_like(own), own.abs(), proof.replay
            for witness, weight in zip(proof.witnesses, proof.weights, strict=True):
                run = program.run(choices=witness.choices)
                flat = run.tensors[_summed(program)]
                found = _jacobian(flat, run.leaves)
                total, size = total + weight * found, torch.maximum(size, found.abs())
        except (ClarkeError, RuntimeError):
            return ()
        room = GRADCHECK_ROWS * size.amax(1, keepdim=True)
        same = ((total - own).abs() <= room).all(1)
        return tuple(i for i, s in zip(row.indices, same.tolist(), strict=True) if s)

    def _used(self, function: Callable[..., torch.Tensor]) -> tuple[int, ...]:
        candidates = [i for i, a in enumerate(self.arguments) if differentiable(a)]
        first = {id(self.arguments[i]): i for i in reversed(candidates)}
        positions = sorted(first.values())
        if not positions:
            raise InputError("No input requires a gradient.")
        grads = torch.autograd.grad(
            function(*self.arguments), self._leaves(positions), allow_unused=True
        )
        pairs: list[tuple[int, Any]] = list(zip(positions, grads, strict=True))
        return tuple(i for i, g in pairs if g is not None)

    def _leaves(self, positions: Sequence[int]) -> list[torch.Tensor]:
        return [self.arguments[i] for i in positions]

    def moved(self, positions: Sequence[int], shifts: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """The arguments with some inputs shifted."""
        new = {
            id(self.arguments[i]): (self.arguments[i] + s.to(self.arguments[i].dtype))
            .detach()
            .requires_grad_()
            for i, s in zip(positions, shifts, strict=True)
        }
        return tuple(new.get(id(a), a) for a in self.arguments)


def differentiable(value: Any) -> bool:
    """Whether a value is a tensor that requires a gradient."""
    return isinstance(value, torch.Tensor) and value.requires_grad


def _summed(program: Program) -> int:
    """The slot of what `Rows.mixed` weighs and sums."""
    product = program.analysis.trace.ops[-2]
    first = product.args[0]
    if not isinstance(first, Ref) or product.short_name != "mul":
        raise InputError("The components are not summed where they were expected to be.")
    return first.slot


def _moved_by(flat: torch.Tensor, nudges: Nudges, relevant: torch.Tensor) -> torch.Tensor:
    """(count,) which components change with the relevant kinks, along a random direction."""
    weights = torch.zeros_like(flat).requires_grad_()
    moved = torch.zeros_like(flat, dtype=torch.bool)
    if not nudges.leaves:
        return moved
    grads = torch.autograd.grad(
        (flat * weights).sum(), nudges.leaves, create_graph=True, materialize_grads=True
    )
    generator = torch.Generator().manual_seed(1)
    along = torch.zeros((), dtype=flat.dtype)
    for grad, kinks in zip(grads, nudges.kinks, strict=True):
        random = torch.randn(grad.shape, dtype=grad.dtype, generator=generator)
        along = along + (grad * random * relevant[kinks]).sum()
    if not along.requires_grad:
        return moved
    (rates,) = torch.autograd.grad(along, weights, materialize_grads=True)
    return rates != 0


def _jacobian(flat: torch.Tensor, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    """One row for each component."""
    units = torch.eye(flat.numel(), dtype=flat.dtype)
    inputs = list(leaves)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch batches some operations by a loop
            grads = torch.autograd.grad(
                flat, inputs, units, True, is_grads_batched=True, materialize_grads=True
            )
    except RuntimeError:  # an operation without a batched backward pass
        each = [torch.autograd.grad(flat, inputs, u, True, materialize_grads=True) for u in units]
        grads = tuple(torch.stack(g) for g in zip(*each, strict=True))
    return torch.cat([g.detach().reshape(flat.numel(), -1).to(torch.float64) for g in grads], 1)
