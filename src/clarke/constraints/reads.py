"""What a program read into Python: whether it can be another value beside the point, and why.

``if (l > 0).sum() >= 1`` does not change where one entry of l is at zero and another is positive:
the count is 1 or 2 there. Truth values and counts are bounded from both sides, through operations
that grow with what they read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.capture import filled, input_slots
from clarke.kinks.choices import ArgRule, ChoiceRule
from clarke.kinks.facts import MOVES
from clarke.kinks.steps import ComparisonRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.capture import OpRecord, ScalarRead
    from clarke.steering import Analysis, Site

    Range = tuple[torch.Tensor, torch.Tensor]

_GROWING = frozenset(
    ["logical_and", "logical_or", "bitwise_and", "bitwise_or", "any", "all", "sum", "cumsum"]
) | {"count_nonzero", "amax", "amin", "max", "min", "maximum", "minimum", "add", "_to_copy"}
_JOINED = MOVES | {"detach", "cat", "stack"}
_ABOVE = frozenset(["gt", "ge"])
_BELOW = frozenset(["lt", "le"])


def changing_reads(
    analysis: Analysis, values: Mapping[int, torch.Tensor]
) -> tuple[ScalarRead, ...]:
    """The reads of a trace but those of integers and truth values that stay as they are.

    Args:
        analysis: The trace and its kinks.
        values: Every tensor of the trace at the point.
    """
    bounds = _Bounds(analysis, values)
    return tuple(r for r in analysis.trace.scalar_reads if r.shape or not bounds.fixed(r.slot))


def behind_reads(analysis: Analysis, *, shapes: bool) -> frozenset[int]:
    """Positions of the operations that made what was read into Python, through whole numbers.

    Args:
        analysis: The trace and its kinks.
        shapes: Also behind shapes that a mask decides.
    """
    trace = analysis.trace
    made = {o: p for p, op in enumerate(trace.ops) for o in op.outputs if o is not None}
    found: set[int] = set()
    todo = [r.slot for r in trace.scalar_reads if shapes or not r.shape]
    while todo:
        at = made.get(todo.pop())
        if at is not None and at not in found:
            found.add(at)
            todo += [s for s in input_slots(trace.ops[at]) if not is_float(analysis, s)]
    return frozenset(found)


def held_positions(analysis: Analysis) -> frozenset[int]:
    """Positions of touched operations of which only the side that ran is known.

    Those on which a branch of Python rests, and those whose tied indices go on into other
    operations, where nothing says what they would make of another order.
    """
    used = {s for op in analysis.trace.ops for s in input_slots(op)}
    read = behind_reads(analysis, shapes=False) if analysis.trace.scalar_reads else frozenset()
    return frozenset(
        p
        for p, site in analysis.sites.items()
        if site.touch.count
        and has_a_side(site)
        and (p in read or not used.isdisjoint(_ranks(site)))
    )


def held_sides(analysis: Analysis) -> torch.Tensor:
    """(count,) bool: tied comparisons whose truth value a branch of Python may rest on.

    ``x[0] if x[0] >= x[1] else x[1]`` runs one branch at a tie, and on one side of it: there the
    program is the one that ran. The other side is another program, which a trace does not show. So
    these kinks count as relevant, and only the side that ran may be selected. So too the index
    of ``x[x.argmax()]``, and the order of ``weights[losses.sort().indices]``. A comparison that
    holds at equality only (``==``) has no such side.
    """
    held = torch.zeros(analysis.count, dtype=torch.bool)
    for position in held_positions(analysis):
        site = analysis.sites[position]
        held[site.first : site.first + site.touch.count] = True
    return held


def has_a_side(site: Site) -> bool:
    """Whether an operation compares or ranks differentiated values, and not for being equal."""
    rule = site.rule
    if not site.touch.op.differentiated:
        return False
    if isinstance(rule, ChoiceRule):  # of very many, not all rows are listed
        return bool(_ranks(site)) and not site.touch.hazards
    return isinstance(rule, ArgRule) or (isinstance(rule, ComparisonRule) and not rule.isolated)


def _ranks(site: Site) -> tuple[int, ...]:
    """The slot of the index that an operation returns, with what it chose or alone."""
    outputs = site.touch.op.outputs
    if isinstance(site.rule, ChoiceRule):
        outputs = outputs[1:2]
    elif not isinstance(site.rule, ArgRule):
        return ()
    return tuple(o for o in outputs if o is not None)


def is_float(analysis: Analysis, slot: int | None) -> bool:
    """Whether a slot holds floating point numbers, as far as a later operation says so.

    Slots that no later operation reads have no entry: booleans of a branch are such.
    """
    dtype = analysis.trace.slot_dtypes.get(slot) if slot is not None else None
    return dtype is not None and dtype.is_floating_point


class _Bounds:
    """What integers and truth values may be beside the point: (least, greatest), by slot."""

    def __init__(self, analysis: Analysis, values: Mapping[int, torch.Tensor]) -> None:
        self._analysis = analysis
        self._values = values
        self._known: dict[int, Range | None] = {}
        self._made = {
            o: p
            for p, op in enumerate(analysis.trace.ops)
            for o in op.outputs
            if o is not None and not op.short_name.endswith("_")
        }
        self._written = {
            o
            for op in analysis.trace.ops
            if op.short_name.endswith("_")
            for o in (*input_slots(op), *op.outputs)
        }

    def fixed(self, slot: int) -> bool:
        """Whether a slot keeps its value."""
        found = self._range(slot)
        return found is not None and torch.equal(*found)

    def _range(self, slot: int) -> Range | None:
        if slot not in self._known:
            self._known[slot] = None  # whatever reads itself is not known
            self._known[slot] = self._find(slot)
        return self._known[slot]

    def _find(self, slot: int) -> Range | None:
        value, position = self._values.get(slot), self._made.get(slot)
        if value is None or value.is_floating_point() or slot in self._written:
            return None
        if position is None:
            external = self._analysis.trace.externals.get(slot)
            plain = external is not None and not (external.stopped or external.cut_by)
            return (value, value) if plain else None
        site = self._analysis.sites.get(position)
        if site is None:
            return self._follow(self._analysis.trace.ops[position])
        if site.touch.count == 0:
            return (value, value)
        if not isinstance(site.rule, ComparisonRule):
            return None
        sides = []
        for side in (False, True):
            flat = value.reshape(-1).clone()
            flat[site.touch.elements] = side
            sides.append(flat.reshape(value.shape))
        return sides[0], sides[1]

    def _follow(self, op: OpRecord) -> Range | None:
        reads = {s: self._range(s) for s in input_slots(op)}
        if any(r is None for r in reads.values()) or torch.Tag.nondeterministic_seeded in getattr(
            op.func, "tags", ()
        ):
            return None
        name = op.short_name
        known = {s: r for s, r in reads.items() if r is not None}

        def run(ends: tuple[int, ...]) -> torch.Tensor:
            rest = iter(ends)

            def put(slot: int) -> torch.Tensor:
                return known[slot][next(rest, ends[0])]

            found = op.func(*[filled(a, put) for a in op.args], **op.kwargs)
            if not isinstance(found, torch.Tensor):
                raise TypeError
            return found

        try:
            if all(torch.equal(*r) for r in known.values()):
                out = run((0,))
                return out, out
            if name in _GROWING | _JOINED and op.kwargs.get("alpha", 1) > 0:
                return run((0,)), run((1,))
            if name in ("logical_not", "bitwise_not") or name in _BELOW:
                return run((1, 0)), run((0, 1))
            if name in _ABOVE:
                return run((0, 1)), run((1, 0))
        except (TypeError, RuntimeError):  # several results, or none that can be compared
            return None
        return None
