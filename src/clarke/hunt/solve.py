"""Points at which chosen switching functions are exactly zero in floating point."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import torch

from clarke.errors import ClarkeError
from clarke.kinks.choices import ChoiceRule
from clarke.kinks.model import Call
from clarke.kinks.regions import RegionRule
from clarke.kinks.steps import ComparisonRule, StepRule
from clarke.numerics import HUNT_CLOSE, HUNT_LISTED, HUNT_NEWTON, HUNT_ULPS
from clarke.prepare import prepared
from clarke.steering import Partial, Program, analyse
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

    The switching functions, and how many, are drawn at random; the points are those at which
    the recorded operations make them exactly zero, round numbers first.
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


@leaves_no_trace
def followed(subject: Subject, point: Point, entry: tuple[int, int], new: float) -> Point | None:
    """The point with another value of one entry, and others moved so that its kinks stay touched.

    Args:
        subject: The function.
        point: On the kinks.
        entry: Which input, and which of its elements.
        new: Its value.
    """
    arguments, _ = subject.call(point, vary=True)
    moved = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    with prepared(subject.function, arguments, None) as run:
        analysis = analyse(run.trace, run.registry, run.deadline)
        slots = {id(e.tensor): e.slot for e in run.trace.leaves()}
        touched = [
            s for s in analysis.ordered() if s.touch.count and isinstance(s.rule, RegionRule)
        ]
        if len(moved) != len(point) or not touched or not all(id(x) in slots for x in moved):
            return None
        program = Program(analysis, [slots[id(x)] for x in moved], dtype=moved[0].dtype)
        calls = _System(program, touched, [0.0] * len(touched)).calls(point)
        drawn = [
            (site, draw)
            for site, call in zip(touched, calls, strict=True)
            for draw in _zeros(site, call)
        ][: int(HUNT_LISTED)]
        if not drawn:
            return None
        system = _System(program, *zip(*drawn, strict=True))
        start = [x.clone() for x in point]
        start[entry[0]].view(-1)[entry[1]] = new
        held = sum(x.numel() for x in point[: entry[0]]) + entry[1]
        found = next(system.solutions(start, random.Random(0), held), None)  # noqa: S311 - no secret
    return None if found is None else tuple(f.to(p) for f, p in zip(found, point, strict=True))


def _zeros(site: Site, call: Call) -> Iterator[float]:
    """Draws of the equations of an operation that hold: see `_gap`."""
    choices = site.rule.split(call) if isinstance(site.rule, RegionRule) else ()
    for which, gap in enumerate(choices):
        flat = gap.detach().reshape(-1)
        for place in (flat == 0).nonzero().squeeze(1).tolist():
            yield (which + (place + 1 / 2) / len(flat)) / len(choices)


class _System:
    """Equations between the variables: one drawn from each of some operations."""

    def __init__(self, program: Program, sites: Sequence[Site], draws: Sequence[float]) -> None:
        self._partial = Partial(program, [site.touch.op for site in sites])
        self._sites = sites
        self._draws = draws

    def calls(self, point: Sequence[torch.Tensor]) -> Sequence[Call]:
        """What the operations read at a point."""
        return self._partial.run(point, grad=False)[1]

    def equations(
        self, point: Sequence[torch.Tensor], *, grad: bool = True
    ) -> tuple[torch.Tensor, Sequence[Any]]:
        """(m,) values that have to vanish, differentiable where asked, and the leaves."""
        leaves, calls = self._partial.run(point, grad=grad)
        with torch.set_grad_enabled(grad):
            found = [
                gap.reshape(-1)
                for site, call, draw in zip(self._sites, calls, self._draws, strict=True)
                if (gap := _gap(site, call, draw)) is not None
            ]
        if not found:
            raise IndexError("no equations")
        return torch.cat(found), leaves

    def solutions(
        self, start: list[torch.Tensor], rng: random.Random, held: int | None = None
    ) -> Iterator[list[torch.Tensor]]:
        """Newton's method on as few variables as there are equations, without one that is held."""
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
            every = torch.stack(rows)
            if held is not None:
                every[:, held] = 0
            return equations.detach()[: int(HUNT_LISTED)], every

        values, before = flat.clone(), torch.inf
        columns: torch.Tensor | None = None
        for _ in range(int(HUNT_NEWTON)):
            gaps, rows = at(values)
            left = float(gaps.abs().max())
            stuck = left > before / 2  # it goes nowhere, or is as near as it gets
            before = min(left, before)
            if left == 0 or stuck:
                break
            if not bool(torch.isfinite(rows).all() and torch.isfinite(gaps).all()):
                return
            columns = _columns(rows, rng) if columns is None else columns
            step = torch.linalg.lstsq(
                rows[:, columns].double(), -gaps.double()[:, None], driver="gelsd"
            )[0][:, 0]
            if not bool(torch.isfinite(step).all()):
                return
            values[columns] += step.to(values)
        if before > HUNT_CLOSE * float(flat.abs().amax().clamp(min=1)):
            return
        changed = (values != flat).nonzero().squeeze(1)
        for tried in _variants(values, changed):
            if self._zero(split(tried)):
                yield split(tried)
                return

    def _zero(self, point: list[torch.Tensor]) -> bool:
        return not bool(self.equations(point, grad=False)[0].any())


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


def _gap(site: Site, call: Call, draw: float) -> torch.Tensor | None:
    """What has to vanish for a kink of the operation to be touched: one of many, by `draw`."""
    rule, x = site.rule, call.args[0]
    if isinstance(rule, RegionRule):
        choices = rule.split(call)
    elif isinstance(rule, ComparisonRule):
        choices = (torch.as_tensor(call.args[0] - call.args[1]),)
    elif isinstance(rule, StepRule):
        choices = (x - x.detach().round(), x - x.detach().floor() - 0.5)
    elif isinstance(rule, ChoiceRule):
        flat = x.reshape(-1)
        first, second = divmod(int(draw * len(flat) ** 2), max(len(flat), 1))
        return None if first == second else flat[first] - flat[second]
    else:
        return _singular(call, draw)
    which, draw = _part(len(choices), draw)
    return _entry(choices[which], draw)


def _singular(call: Call, draw: float) -> torch.Tensor | None:
    """An argument that is zero or one: in one entry, in a row, or as a whole."""
    given = [a for a in call.args[:2] if isinstance(a, torch.Tensor) and a.is_floating_point()]
    if not given:
        return None
    which, draw = _part(len(given), draw)
    value = given[which]
    kind, draw = _part(5, draw)
    if kind == 0:
        return value.reshape(-1)[: int(HUNT_LISTED)]
    if kind == 1 and value.dim():
        rows = value.reshape(-1, value.shape[-1])
        return rows[int(draw * len(rows))] if len(rows) else None
    return _entry(value - (0, 0, 0, 1, -1)[kind], draw)


def _part(count: int, draw: float) -> tuple[int, float]:
    """One of `count`, and a number in [0, 1) for what is drawn from it."""
    whole = int(draw * count)
    return whole, draw * count - whole


def _entry(values: torch.Tensor, draw: float) -> torch.Tensor | None:
    flat = values.reshape(-1)
    return flat[int(draw * len(flat))] if len(flat) else None
