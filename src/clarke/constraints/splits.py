"""Operations that jump, as constants and the conditions that choose among them.

``floor(x)`` at x = 1 is 1 where ``x - 1 >= 0`` holds and 0 where not. Written so, the rest of the
program can be followed on both sides (`clarke.constraints.forks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.kinks import Hazard
from clarke.kinks.casts import CastRule
from clarke.kinks.choices import ArgRule
from clarke.kinks.lowering import Lowerer, Part
from clarke.kinks.smooth import bind
from clarke.kinks.steps import ComparisonRule, QuotientRule, RemainderRule, StepRule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.steering import Site

_ATEN = torch.ops.aten
_QUARTER = 0.25  # of the distance between two steps of a rounding
_TIED = 4  # members of a tie whose order is followed pair by pair


@dataclass(frozen=True, eq=False)
class Split:
    """One result of an operation at ties.

    Attributes:
        site: The operation.
        output: Which of its results.
        switch: Given a writer and the operation's arguments, the number for each condition: (k,)
            with one entry for each, or, with `elementwise`, in the shape of the result.
        compare: A condition holds where this comparison of its number with 0 does.
        count: How many conditions there are.
        value: The constant for an outcome of the conditions.
        elements: With `elementwise`, (k,) the flat positions that each condition decides.
        network: Pairs of places, to be compared and exchanged in this order, instead of `switch`.
        finish: Computes the result from that constant; None where it is the result.
    """

    site: Site
    output: int
    switch: Callable[[Lowerer, Sequence[Any]], Part]
    compare: Any
    count: int
    value: Callable[[Sequence[bool]], torch.Tensor]
    elements: torch.Tensor | None = None
    finish: Callable[[Lowerer, Sequence[Any], Part], Part] | None = None
    network: tuple[tuple[int, int], ...] = ()


def split_of(site: Site, args: Sequence[Any], result: Sequence[Any], *, lost: bool) -> Split | None:
    """How an operation with touched kinks jumps; None where it does not, or nobody knows.

    Args:
        site: The operation.
        args: Its arguments at the point: `Part` for tensors.
        result: What it returned there.
        lost: Its truth values reach operations through which a mask cannot be followed.
    """
    rule = site.rule
    if isinstance(rule, ComparisonRule):
        return _comparison(site, result[0]) if lost else None
    if isinstance(rule, (StepRule, CastRule)) and Hazard.STEP in site.touch.hazards:
        return _rounding(site, args, result[0])
    if isinstance(rule, (RemainderRule, QuotientRule)) and Hazard.STEP in site.touch.hazards:
        return _division(site, args)
    return _order(site, args, result)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Part) else value


def _sided(
    touch_elements: torch.Tensor, actual: torch.Tensor, other: torch.Tensor
) -> Callable[[Sequence[bool]], torch.Tensor]:
    """Constants that are `actual` where a condition holds and `other` where not."""

    def value(outcome: Sequence[bool]) -> torch.Tensor:
        flat = actual.reshape(-1).clone()
        off = touch_elements[~torch.tensor(list(outcome), dtype=torch.bool)]
        flat[off] = other.reshape(-1)[off]
        return flat.reshape(actual.shape)

    return value


def _comparison(site: Site, result: torch.Tensor) -> Split:
    touch = site.touch
    op = touch.op

    def switch(lo: Lowerer, args: Sequence[Any]) -> Part:
        gap: Part = lo(_ATEN.sub.Tensor, args[0], args[1])
        return gap

    overload = getattr(_ATEN, op.short_name.rstrip("_"))
    base = touch.base.reshape(result.shape) == 1
    true = base.reshape(-1).clone()
    true[touch.elements] = True
    false = base.reshape(-1).clone()
    false[touch.elements] = False
    return Split(
        site,
        0,
        switch,
        overload.Scalar,
        touch.count,
        _sided(touch.elements, true.reshape(result.shape), false.reshape(result.shape)),
        touch.elements,
    )


def _rounding(site: Site, args: Sequence[Any], result: torch.Tensor) -> Split | None:
    """floor, ceil, round, trunc, frac, casts: x minus where it stands decides."""
    op, touch = site.touch.op, site.touch
    x = args[0].value
    if x.shape != result.shape or x.is_complex():
        return None
    step = _QUARTER / 10.0 ** op.kwargs.get("decimals", 0)
    residue = isinstance(site.rule, StepRule) and site.rule.residue
    func = _ATEN.trunc.default if residue else op.func
    kwargs = {} if residue else dict(op.kwargs)
    rest = [_plain(a) for a in args[1:]]
    sides = [func(x + side, *rest, **kwargs) for side in (-step, step)]
    actual = func(x.clone(), *rest, **kwargs)
    # The condition is to hold at equality, where what was computed holds.
    below = (sides[0] == actual).reshape(-1)
    sign = torch.where(below, -1.0, 1.0).to(x.dtype).reshape(x.shape)
    true = torch.where(below.reshape(x.shape), sides[0], sides[1])
    false = torch.where(below.reshape(x.shape), sides[1], sides[0])
    at = x.clone()

    def switch(lo: Lowerer, given: Sequence[Any]) -> Part:
        gap: Part = lo(_ATEN.mul.Tensor, lo(_ATEN.sub.Tensor, given[0], at), sign)
        return gap

    def rest_of(lo: Lowerer, given: Sequence[Any], whole: Part) -> Part:
        left: Part = lo(_ATEN.sub.Tensor, given[0], whole)
        return left

    settled = actual.reshape(-1).clone()
    settled[touch.elements] = true.reshape(-1)[touch.elements]
    return Split(
        site,
        0,
        switch,
        _ATEN.ge.Scalar,
        touch.count,
        _sided(touch.elements, settled.reshape(x.shape), false),
        touch.elements,
        rest_of if residue else None,
    )


def _division(site: Site, args: Sequence[Any]) -> Split | None:
    """remainder, fmod and division with rounding: the quotient jumps at whole numbers."""
    op, touch = site.touch.op, site.touch
    x, y = (torch.as_tensor(_plain(a), dtype=torch.float64) for a in args[:2])
    x, y = torch.broadcast_tensors(x, y)
    modulo = isinstance(site.rule, RemainderRule)
    truncated = (
        site.rule.truncated
        if isinstance(site.rule, RemainderRule)
        else (op.kwargs.get("rounding_mode") == "trunc")
    )
    mode = "trunc" if truncated else "floor"
    whole = (x / y).round()
    actual = touch.base.to(torch.float64).reshape(x.shape)
    sides = [torch.div(whole + s, 1.0, rounding_mode=mode) for s in (-_QUARTER, _QUARTER)]
    below = sides[0] == actual
    sign = torch.where(below, -1.0, 1.0) * torch.sign(y)
    false = torch.where(below, sides[1], sides[0])

    def switch(lo: Lowerer, given: Sequence[Any]) -> Part:
        product = lo(_ATEN.mul.Tensor, _tensor(given[1]), whole)
        gap: Part = lo(_ATEN.mul.Tensor, lo(_ATEN.sub.Tensor, _tensor(given[0]), product), sign)
        return gap

    def rest_of(lo: Lowerer, given: Sequence[Any], quotient: Part) -> Part:
        product = lo(_ATEN.mul.Tensor, _tensor(given[1]), quotient)
        left: Part = lo(_ATEN.sub.Tensor, _tensor(given[0]), product)
        return left

    value = _sided(touch.elements, actual, false)
    return Split(
        site,
        0,
        switch,
        _ATEN.ge.Scalar,
        touch.count,
        value,
        touch.elements,
        rest_of if modulo else None,
    )


def _tensor(value: Any) -> Any:
    return value if isinstance(value, Part) else torch.tensor(float(value), dtype=torch.float64)


def _order(site: Site, args: Sequence[Any], result: Sequence[Any]) -> Split | None:
    """Indices of sorted or greatest elements: the order of tied elements decides."""
    op = site.touch.op
    output = next(
        (
            i
            for i, r in enumerate(result)
            if isinstance(r, torch.Tensor) and r.dtype == torch.int64 and op.outputs[i] is not None
        ),
        None,
    )
    if output is None or not isinstance(args[0], Part):
        return None
    if not isinstance(site.rule, ArgRule) and output == 0:
        return None
    x = args[0].value
    ranks = x.reshape(-1).unique(return_inverse=True)[1]
    rest, kwargs = [_plain(a) for a in args[1:]], dict(op.kwargs)

    def run(wins: torch.Tensor) -> torch.Tensor:
        apart = ranks.to(torch.float64) + wins / (1.0 + x.numel())
        out = op.func(apart.reshape(x.shape), *rest, **kwargs)
        found: torch.Tensor = (out if isinstance(out, tuple) else (out,))[output]
        return found

    first = _as_it_was(run, ranks, result[output], op.kept_outputs.get(output))
    groups = _groups(ranks, bind(op.func, op.args, op.kwargs).get("dim"), x.shape)
    if first is None or groups is None:
        return None
    groups = [sorted(g, key=lambda e: -float(first[e])) for g in groups]
    network = [c for g in groups for c in _network(g)]

    def value(outcome: Sequence[bool]) -> torch.Tensor:
        holder = {e: e for g in groups for e in g}  # by place: which element stands there
        for (ahead, behind), holds in zip(network, outcome, strict=True):
            if not holds:
                holder[ahead], holder[behind] = holder[behind], holder[ahead]
        wins = torch.zeros(x.numel(), dtype=torch.float64)
        for g in groups:
            for place, name in enumerate(g):
                wins[holder[name]] = len(g) - place
        return run(wins)

    def switch(lo: Lowerer, given: Sequence[Any]) -> Part:
        empty: Part = lo(_ATEN.take.default, given[0], torch.zeros(0, dtype=torch.int64))
        return empty

    return Split(site, output, switch, _ATEN.ge.Scalar, len(network), value, network=tuple(network))


def _groups(ranks: torch.Tensor, dim: Any, shape: torch.Size) -> list[list[int]] | None:
    """Elements that tie along a dimension (along all if it is None); None if too many do."""
    place = torch.arange(ranks.numel()).reshape(shape)
    rows = place.reshape(1, -1)
    if isinstance(dim, int) and len(shape) > 0:
        rows = place.movedim(dim, -1).reshape(-1, shape[dim])
    found = []
    for row in rows:
        own = ranks[row]
        for rank in own.unique().tolist():
            members = row[own == rank].tolist()
            if len(members) > _TIED:
                return None
            if len(members) > 1:
                found.append(members)
    return found or None


def _network(places: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours to be compared, and exchanged where they are out of order, so that all are sorted.

    An exchange swaps two neighbours whose values are equal where it happens, whatever the others
    do; of all pairs at once some outcomes are no order at all.
    """
    number = len(places)
    return [(places[i], places[i + 1]) for last in range(number - 1, 0, -1) for i in range(last)]


def _as_it_was(
    run: Callable[[torch.Tensor], torch.Tensor],
    ranks: torch.Tensor,
    result: torch.Tensor,
    kept: torch.Tensor | None,
) -> torch.Tensor | None:
    """Strict places of tied elements under which the operation returns what it returned."""
    wanted = result if kept is None else kept
    number = ranks.numel()
    ahead = torch.arange(number, dtype=torch.float64)
    named = torch.zeros(number, dtype=torch.float64)
    flat = wanted.reshape(-1)
    if flat.numel() <= number and bool((flat < number).all()):
        named[flat] = number - torch.arange(flat.numel(), dtype=torch.float64)
    for places in (-ahead, ahead, named * number - ahead, -named * number - ahead):
        if torch.equal(run(places / (1.0 + float(places.abs().max()))), wanted):
            return places
    return None
