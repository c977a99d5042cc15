"""What a reader can see of a structure: plain data, and its text (`clarke explain --structure`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from clarke.layout import Line, laid
from clarke.theorems.affine import bits, is_dead
from clarke.theorems.text import place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.theorems.affine import State
    from clarke.theorems.peel import Peeling
    from clarke.theorems.structure import Fault, KinkSite, Structure

_NAMED = 6  # leaves, of one kind, that are named


class Way(Enum):
    """How a leaf reaches the input of an operation with kinks; values are what the user reads."""

    SHIFT = "as a shift"
    AFFINE = "entry by entry, times constants"
    SMOOTH = "by smooth operations"
    KINKS = "through earlier kinks"
    BOTH = "by smooth operations and through earlier kinks"


@dataclass(frozen=True)
class Reach:
    """A leaf on which the input of an operation with kinks may depend."""

    leaf: str
    way: Way


@dataclass(frozen=True)
class KinkFacts:
    """What holds of one operation with kinks whatever the values are.

    Attributes:
        operation: Its name.
        place: Its module, or file and line.
        shape: Shape of its input; None if unknown.
        lambdas: Its kinks with AD's weight of the upper piece, as text.
        reached_by: The leaves on which its input may depend.
        after: Numbers of the operations with kinks on which its input may depend.
        null: How many entries of its input no leaf moves: their kinks never matter.
        settled_by: The leaf whose shift puts all of its kinks on AD's side; "" if there is none.
        together_with: Numbers of the operations that the same shift settles.
    """

    operation: str
    place: str
    shape: tuple[int, ...] | None
    lambdas: str
    reached_by: tuple[Reach, ...]
    after: tuple[int, ...]
    null: int
    settled_by: str
    together_with: tuple[int, ...]

    def lines(self, number: int) -> list[Line]:
        """Its text, with its number in evaluation order."""
        shape = "of unknown shape" if self.shape is None else str(self.shape)
        head = Line(f"{number}  {self.operation} at {self.place} {shape}", "  ", "     ")
        ways: dict[Way, list[str]] = {}
        for reach in self.reached_by:
            ways.setdefault(reach.way, []).append(reach.leaf)
        told = [f"lambda {self.lambdas}"]
        told += [f"reached {w.value}: {_listed(ways[w])}" for w in Way if w in ways]
        if self.after:
            told.append(f"behind {_listed(tuple(map(str, self.after)))}")
        if self.null:
            told.append(f"null for all values: {self.null} entries")
        if self.settled_by:
            too = _listed(tuple(map(str, self.together_with)))
            told.append(f"settled by {self.settled_by}" + (f", with {too}" if too else ""))
        else:
            told.append("settled by no leaf")
        return [head, *(Line(text, "     ", "       ") for text in told)]


@dataclass(frozen=True)
class Facts:
    """What holds of a program whatever the values are.

    Attributes:
        operations: How often each operation runs, by name.
        variables: The leaves that are differentiated with respect to.
        fixed: The other leaves.
        kinks: The operations with kinks, in evaluation order.
        maxima: Maxima over several elements, and where.
        rough: Operations that no theorem covers, with the reason.
        moving: What may change from value to value beside the operations' results.
        reused: Parameters used again after a kink that depends on them.
    """

    operations: tuple[tuple[str, int], ...]
    variables: tuple[str, ...]
    fixed: tuple[str, ...]
    kinks: tuple[KinkFacts, ...]
    maxima: tuple[str, ...]
    rough: tuple[str, ...]
    moving: tuple[str, ...]
    reused: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = asdict(self)
        found["operations"] = dict(self.operations)
        for own in found["kinks"]:
            own["reached_by"] = {r["leaf"]: r["way"].name for r in own["reached_by"]}
        return found

    def __str__(self) -> str:
        return laid(self.lines())

    def lines(self) -> list[Line]:
        """Its text, to be wrapped where it is printed."""
        counts = ", ".join(f"{name} {n}" if n > 1 else name for name, n in self.operations)
        lines = [Line(f"{sum(n for _, n in self.operations)} operations: {counts}", "", "  ")]
        lines.append(Line(f"variables: {_listed(self.variables)}", "", "  "))
        if self.fixed:
            lines.append(Line(f"other leaves: {_listed(self.fixed)}", "", "  "))
        lines.append(Line(f"operations with kinks: {len(self.kinks)}"))
        for number, kink in enumerate(self.kinks):
            lines += kink.lines(number)
        told = (
            ("maximum", self.maxima),
            ("not covered", self.rough),
            ("depends on values", self.moving),
            ("used again", self.reused),
        )
        for title, faults in told:
            for fault in faults:
                lines.append(Line(f"{title}: {fault}", "", "  "))
        return lines


def facts_of(structure: Structure, peeling: Peeling) -> Facts:
    """What can be told of a structure.

    Args:
        structure: The structure.
        peeling: Which kinks which leaf settles.
    """
    counts = Counter(op.short_name for op in structure.trace.ops)
    settled: dict[int, list[int]] = {}
    for number, group in enumerate(peeling.groups):
        for member in group.members:
            settled.setdefault(member.site, []).append(number)
    kinks = []
    for number, site in enumerate(structure.sites):
        groups = (
            [] if number in peeling.left else [peeling.groups[g] for g in settled.get(number, ())]
        )
        own = {m.site for g in groups for m in g.members} - {number}
        names = dict.fromkeys(structure.leaves[g.leaf].name for g in groups)
        kinks.append(_kink(structure, site, ", ".join(names), tuple(sorted(own))))
    return Facts(
        operations=tuple(counts.most_common()),
        variables=tuple(leaf.name for leaf in structure.leaves if leaf.variable),
        fixed=tuple(leaf.name for leaf in structure.leaves if not leaf.variable),
        kinks=tuple(kinks),
        maxima=_told(structure.pools),
        rough=_told(structure.rough),
        moving=_told(structure.moving),
        reused=_told(structure.reused),
    )


def _kink(
    structure: Structure, site: KinkSite, settled_by: str, together: tuple[int, ...]
) -> KinkFacts:
    state = site.state
    null = 0
    if state.shape is not None:
        null = int(is_dead(state, state.shape).sum())
    return KinkFacts(
        operation=site.op.shown,
        place=place(site.op.location),
        shape=None if state.shape is None else tuple(state.shape),
        lambdas=", ".join(map(str, site.points or ())) or "unknown",
        reached_by=tuple(
            Reach(structure.leaves[leaf].name, _way(state, leaf)) for leaf in bits(state.depends)
        ),
        after=bits(state.kinks),
        null=null,
        settled_by=settled_by,
        together_with=together,
    )


def _way(state: State, leaf: int) -> Way:
    """How a tensor depends on a leaf."""
    form = state.forms.get(leaf)
    if form is not None:
        return Way.SHIFT if form.added else Way.AFFINE
    if not state.through >> leaf & 1:
        return Way.SMOOTH
    return Way.BOTH if state.direct >> leaf & 1 else Way.KINKS


def _told(faults: Sequence[Fault]) -> tuple[str, ...]:
    return tuple(f"{f.operation} at {place(f.location)}: {f.reason}" for f in faults)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
