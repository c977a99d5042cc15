"""Points at which chosen switching functions are exactly zero in floating point."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref
from clarke.errors import ClarkeError
from clarke.kinks.choices import ChoiceRule
from clarke.kinks.model import Call
from clarke.kinks.regions import RegionRule
from clarke.kinks.steps import ComparisonRule, StepRule
from clarke.numerics import HUNT_CLOSE, HUNT_LISTED, HUNT_NEWTON, HUNT_ULPS
from clarke.prepare import prepared
from clarke.steering import Pieces, Program, analyse
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from clarke.hunt.subject import Point, Subject
    from clarke.steering import Site

_SYSTEMS = 4  # for one recorded run
# Steps of a decimal or binary grid on which people write numbers, the coarsest first.
_GRIDS = (1.0, 0.5, 0.25, 0.1, 0.125, 0.05, 0.01, 0.001)


@leaves_no_trace
def solved(
    subject: Subject, point: Point, rng: random.Random, counts: Sequence[int] = (1, 1, 2, 2, 3)
) -> tuple[Point, ...]:
    """Points near `point` on the kinks of several switching functions at once.

    The switching functions, and how many, are drawn at random; those on which the recorded operations are
    exactly zero are returned, round ones first.
    """
    arguments, _ = subject.call(point, vary=True)
    moved = {id(a): a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad}
    with prepared(subject.function, arguments, None) as run:
        analysis = analyse(run.trace, run.registry, run.deadline)
        used = [x for x in run.leaves if id(x) in moved]
        slots = {id(e.tensor): e.slot for e in run.trace.leaves()}
        used = [x for x in used if id(x) in slots]
        if not used or not analysis.sites:
            return ()
        program = Program(analysis, [slots[id(x)] for x in used], dtype=used[0].dtype)
        found: list[list[torch.Tensor]] = []
        for _ in range(_SYSTEMS):
            sites = [rng.choice(list(analysis.ordered())) for _ in range(rng.choice(counts))]
            system = _System(program, sites, [rng.random() for _ in sites])
            with contextlib.suppress(ClarkeError, RuntimeError, IndexError):
                found += system.solutions([x.detach() for x in used], rng)
    first = {id(x): i for i, x in enumerate(used)}
    order = [first.get(i) for i in moved]
    return tuple(
        tuple(
            old if i is None else values[i].to(old.dtype)
            for i, old in zip(order, point, strict=True)
        )
        for values in found
    )


class _System:
    """Equations between the variables: one drawn from each of some operations."""

    def __init__(self, program: Program, sites: Sequence[Site], draws: Sequence[float]) -> None:
        self._program = program
        self._sites = sites
        self._draws = draws

    def equations(self, point: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Sequence[Any]]:
        """(m,) differentiable values that have to vanish, and the leaves."""
        run = self._program.run(point, pieces=Pieces.NATURAL)
        found = []
        for site, draw in zip(self._sites, self._draws, strict=True):
            op = site.touch.op

            def actual(value: Any) -> Any:
                return run.tensors[value.slot] if isinstance(value, Ref) else value

            call = Call(op.func, tuple(actual(a) for a in op.args), op.kwargs)
            groups = list(_gaps(site, call))
            if groups:
                found.append(groups[int(draw * len(groups))].reshape(-1))
        if not found:
            raise IndexError("no equations")
        return torch.cat(found), run.leaves

    def solutions(
        self, start: list[torch.Tensor], rng: random.Random
    ) -> Iterator[list[torch.Tensor]]:
        """Newton's method on as few variables as there are equations, or on all."""
        sizes = [x.numel() for x in start]
        flat = torch.cat([x.reshape(-1) for x in start])

        def split(values: torch.Tensor) -> list[torch.Tensor]:
            parts = values.split(sizes)
            return [p.reshape(x.shape) for p, x in zip(parts, start, strict=True)]

        def at(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            equations, leaves = self.equations(split(values))
            rows = []
            for e in equations[: int(HUNT_LISTED)]:
                if not e.requires_grad:
                    rows.append(torch.zeros_like(values))
                    continue
                grads = torch.autograd.grad(
                    e, list(leaves), retain_graph=True, materialize_grads=True
                )
                rows.append(torch.cat([g.reshape(-1) for g in grads]))
            return equations.detach()[: int(HUNT_LISTED)], torch.stack(rows)

        values = flat.clone()
        for _ in range(int(HUNT_NEWTON)):
            gaps, rows = at(values)
            if not bool(gaps.any()):
                break
            if not bool(torch.isfinite(rows).all() and torch.isfinite(gaps).all()):
                return
            columns = _columns(rows, rng)
            step = torch.linalg.lstsq(
                rows[:, columns].double(), -gaps.double()[:, None], driver="gelsd"
            )[0][:, 0]
            if not bool(torch.isfinite(step).all()):
                return
            values[columns] += step.to(values)
        changed = (values != flat).nonzero().squeeze(1)
        for tried in _variants(values, changed):
            if self._zero(split(tried)):
                yield split(tried)
                return

    def _zero(self, point: list[torch.Tensor]) -> bool:
        return not bool(self.equations(point)[0].any())


def _columns(rows: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """The variables to solve for: one for each equation, drawn from those that it depends on."""
    chosen: list[int] = []
    for row in rows.abs():
        usable = [i for i in row.nonzero().squeeze(1).tolist() if i not in chosen]
        if usable:
            chosen.append(rng.choice(usable))
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def _variants(values: torch.Tensor, changed: torch.Tensor) -> Iterator[torch.Tensor]:
    """The solution on round numbers, as it is, and at its floating point neighbours."""
    for grid in _GRIDS:
        near = (values[changed].double() / grid).round() * grid
        near = near.to(values)
        far = (near - values[changed]).abs() > HUNT_CLOSE * near.abs().clamp(min=1)
        if not bool(far.any()):
            yield values.clone().index_copy_(0, changed, near)
    yield values
    for bound in (torch.inf, -torch.inf):
        for i in changed.tolist():
            moved = values.clone()
            for _ in range(int(HUNT_ULPS)):
                moved[i] = torch.nextafter(moved[i], moved.new_tensor(bound))
                yield moved.clone()


def _gaps(site: Site, call: Call) -> Iterator[torch.Tensor]:
    """What has to vanish for a kink of the operation to be touched: values, each for itself."""
    rule = site.rule
    x = call.args[0]
    listed: Callable[[torch.Tensor], Any] = lambda t: t.reshape(-1)[: int(HUNT_LISTED)]  # noqa: E731
    if isinstance(rule, RegionRule):
        for split in rule.split(call):
            yield from listed(split)
    elif isinstance(rule, ComparisonRule):
        yield from listed(torch.as_tensor(call.args[0] - call.args[1]))
    elif isinstance(rule, ChoiceRule):
        flat = listed(x)
        for i in range(len(flat)):
            yield from (flat[i] - flat[j] for j in range(i))
    elif isinstance(rule, StepRule):
        yield from listed(x - x.detach().round())
        yield from listed(x - x.detach().floor() - 0.5)
    else:
        # Singular points: an argument that is zero or one, alone, by rows and as a whole.
        for value in call.args[:2]:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                yield from listed(value)
                yield from listed(value - 1)
                yield from listed(value + 1)
                yield listed(value)
                if value.dim():
                    yield from value.reshape(-1, value.shape[-1])[: int(HUNT_LISTED)]
