"""Several backward calls that add up in ``.grad`` are one gradient: the verdict on the sum.

That each part is an element of its own subdifferential proves nothing about the sum, since the
subdifferential of a sum is smaller than the sum of subdifferentials. What is proved here:

- If all parts but one are smooth, the sum rule is an equality (Clarke 1983, Prop. 2.3.3,
  Corollary 1), so the verdict of the one part is that of the sum.
- If several parts are Bouligand gradients and ONE direction satisfies the rows of all of them
  together, the sum is a Bouligand gradient (the witness theorem on the summed program).

Everything else is UNDECIDED.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clarke.audit.doubts import Doubts, Version, is_nonzero
from clarke.capture import TensorTable
from clarke.constraints import build_rows
from clarke.deadline import UNLIMITED, Deadline
from clarke.errors import OutOfTimeError
from clarke.feasibility import Outcome, find_witness
from clarke.numerics import WITNESS_MARGIN
from clarke.steering import Program
from clarke.torch_others import Weak
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from clarke.audit.judge import Case
    from clarke.capture import Recorder
    from clarke.decide import Decision

    Held = Callable[[torch.Tensor], torch.Tensor | None]

# Rows of a part are kept for later parts: always up to the first size (2 MB), up to the second
# (64 MB) once the program is known to accumulate gradients.
_ALWAYS = 250_000
_ACCUMULATING = 8_000_000
_PARTS = 64  # a .grad that nobody clears must not let the record grow
_UNSEEN = "a .grad held values that clarke did not see being computed"


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one part: (m, n) over its variables, which are numbered, with their sizes."""

    matrix: NDArray[np.float64]
    leaves: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """One backward call of a group; `missing` says why a non-smooth part has no rows."""

    number: int
    verdict: Verdict
    rows: Rows | None
    missing: str = ""


@dataclass(eq=False)
class Group:
    """The calls whose gradients the same ``.grad`` holds; `broken` says why no sum is judged.

    `size` counts all calls, `parts` holds those that are not smooth. `doubtful` says why some of
    the leaves that the last call added to hold more than these. Of `counted_calls`, a history has
    counted the verdict `counted` on their sum. Where several processes train together, `programs`
    are those of the `parts`, as they are sent, and `unsent` says why one is missing.
    """

    number: int
    size: int = 0
    parts: list[Part] = field(default_factory=list)
    versions: dict[int, Version] = field(default_factory=dict)
    broken: str = ""
    doubtful: str = ""
    programs: list[bytes] = field(default_factory=list)
    unsent: str = ""
    counted_calls: int = 0
    counted: Verdict | None = None


class _Held(NamedTuple):
    """What ``.grad`` of a leaf was after the last call."""

    gradient: Weak
    version: Version
    group: Group


def held(leaf: torch.Tensor) -> torch.Tensor | None:
    """Where the gradient of a leaf adds up."""
    return leaf.grad


class Accumulation:
    """Follows ``.grad`` from call to call; holds no tensor of the user's.

    Attributes:
        accumulating: Some ``.grad`` has been added to before.
        doubts: The leaves whose ``.grad`` holds more than is known.
    """

    def __init__(self, taken: Callable[[int, str], None]) -> None:
        """Call ``taken(number, why)`` when somebody uses a sum that cannot be judged."""
        self.doubts = Doubts(taken)
        self._held: TensorTable[_Held] = TensorTable()
        self._numbers: TensorTable[int] = TensorTable()
        self._count = 0
        self.accumulating = False

    def begin(
        self,
        leaves: Sequence[torch.Tensor],
        number: int,
        recorder: Recorder,
        held_by: Held = held,
    ) -> Group:
        """The group that call `number` belongs to; asked before the call changes ``.grad``.

        `held_by` says where the gradient of a leaf adds up.
        """
        going_on: list[tuple[torch.Tensor, Group]] = []
        doubtful: list[tuple[torch.Tensor, str]] = []
        fresh: set[int] = set()
        versions: dict[int, Version] = {}
        doubts = self.doubts or None
        for leaf in leaves:
            gradient = held_by(leaf)
            why = "" if doubts is None else doubts.settle(leaf)
            number_of_leaf = self._number(leaf)
            versions[number_of_leaf] = Version.of(leaf, recorder)
            if gradient is None:
                fresh.add(number_of_leaf)
                continue
            known = self._held.get(leaf)
            if known is not None and known.gradient() is gradient and known.version.is_of(gradient):
                earlier = known.group.versions.get(number_of_leaf)
                if not why and (earlier is None or not earlier.is_of(leaf)):
                    why = "a parameter changed between the parts"
                if why:
                    doubtful.append((leaf, why))
                else:
                    going_on.append((leaf, known.group))
            elif is_nonzero(gradient):
                doubtful.append((leaf, why or _UNSEEN))
            else:
                fresh.add(number_of_leaf)
        for leaf, group in going_on:
            if not fresh.isdisjoint(group.versions):
                doubtful.append((leaf, "some of the accumulated gradients were cleared"))
        continued = {g.number: g for _, g in going_on if fresh.isdisjoint(g.versions)}
        group = self._merged(number, continued)
        group.versions.update(versions)
        for leaf, why in doubtful:
            self.doubts.add(leaf, number, why, recorder)
        group.doubtful = doubtful[0][1] if doubtful else ""
        return group

    def _merged(self, number: int, continued: dict[int, Group]) -> Group:
        """The groups that call `number` continues, as one, or a new one."""
        if not continued:
            return Group(number)
        self.accumulating = True
        group = continued.pop(min(continued))
        for other in continued.values():
            group.parts += other.parts
            group.programs += other.programs
            group.unsent = group.unsent or other.unsent
            group.size += other.size
            group.versions.update(other.versions)
            group.broken = group.broken or other.broken
        return group

    def finish(
        self,
        group: Group,
        number: int,
        case: Case,
        decision: Decision,
        recorder: Recorder,
        *,
        repaired: bool,
        deadline: Deadline = UNLIMITED,
        held_by: Held = held,
    ) -> tuple[Verdict, str]:
        """Add a judged call to its group, after ``.grad`` has its final value.

        A repaired part counts as what its new gradient is at least, a Clarke gradient.

        Returns:
            The verdict on the accumulated sum, and its explanation.
        """
        for leaf in case.leaves:
            gradient = held_by(leaf)
            if gradient is not None:
                version = Version.of(gradient, recorder)
                self._held.set(leaf, _Held(Weak(gradient), version, group))
        group.size += 1
        if decision.verdict is not Verdict.SMOOTH and not group.broken:
            group.parts.append(
                Part(number, Verdict.CLARKE, None)
                if repaired
                else self._part(number, case, decision, deadline)
            )
        if len(group.parts) > _PARTS:
            group.broken = f"more than {_PARTS} of its parts are not smooth"
        if group.broken:
            group.parts.clear()
        joint, why = joint_verdict(group, deadline)
        if group.doubtful and not why:
            why = f"Where .grad holds more, judged when it is used: {group.doubtful}."
        return joint, why

    def _number(self, leaf: torch.Tensor) -> int:
        found = self._numbers.get(leaf)
        if found is None:
            self._count += 1
            found = self._count
            self._numbers.set(leaf, found)
        return found

    def _part(self, number: int, case: Case, decision: Decision, deadline: Deadline) -> Part:
        relevance, analysis = decision.relevance, decision.analysis
        certificate = decision.certificate
        if decision.counts and decision.verdict is Verdict.BOULIGAND:
            why = f"call {number} was judged by layers, before it was clear that gradients add up"
            return Part(number, decision.verdict, None, why)
        if (
            decision.verdict is not Verdict.BOULIGAND
            or relevance is None
            or analysis is None
            or certificate is None
        ):
            why = f"call {number} was judged together with other processes"
            return Part(number, decision.verdict, None, why if analysis is None else "")
        if decision.theorem not in ("witness", "bias shift"):
            return Part(
                number, decision.verdict, None, f"call {number} was proved by {decision.theorem}"
            )
        sizes = tuple(x.numel() for x in case.leaves)
        limit = _ACCUMULATING if self.accumulating else _ALWAYS
        m = len(certificate.witnesses[0].kinks)
        if m * sum(sizes) > limit:
            why = f"call {number} has {m} rows over {sum(sizes)} variables, too many to keep"
            if not self.accumulating:
                why += " before it was clear that gradients accumulate"
            return Part(number, decision.verdict, None, why)
        operator = build_rows(
            Program(analysis, case.slots, deadline=deadline),
            certificate.witnesses[0].choices,
            relevance.relevant,
        )
        leaves = tuple(self._number(x) for x in case.leaves)
        try:
            rows = Rows(operator.dense(), leaves, sizes)
        except OutOfTimeError as error:
            return Part(number, decision.verdict, None, f"call {number}: {error}")
        return Part(number, decision.verdict, rows)


def unjudged(why: str) -> str:
    """What is said of a sum that cannot be judged."""
    return f"The sum in .grad cannot be judged: {why}."


def joint_verdict(group: Group, deadline: Deadline = UNLIMITED) -> tuple[Verdict, str]:
    """The verdict on the sum of the gradients of a group's parts."""
    if group.broken:
        return Verdict.UNDECIDED, unjudged(group.broken)
    kinked = group.parts
    if not kinked:
        return Verdict.SMOOTH, ""
    if len(kinked) == 1:
        return kinked[0].verdict, ""
    undecided = [p for p in kinked if p.verdict is not Verdict.BOULIGAND]
    if undecided:
        found = ", ".join(f"call {p.number} is {p.verdict.name}" for p in undecided[:3])
        return (
            Verdict.UNDECIDED,
            (
                f"{len(kinked)} of {group.size} accumulated gradients stand at kinks and "
                f"{found}; their sum is not settled by the parts."
            ),
        )
    missing = next((p.missing for p in kinked if p.rows is None), "")
    if missing:
        return Verdict.UNDECIDED, f"The rows of the parts are not all at hand: {missing}."
    rows = [p.rows for p in kinked if p.rows is not None]
    found_direction = find_witness(_stack(rows), margin=WITNESS_MARGIN, deadline=deadline)
    if found_direction.outcome is Outcome.WITNESS:
        return (
            Verdict.BOULIGAND,
            f"One direction satisfies the rows of all {len(kinked)} kinked parts together.",
        )
    return (
        Verdict.UNDECIDED,
        (
            f"Each of the {len(kinked)} kinked parts has a direction of its own, but no direction "
            "was found for all of them together."
        ),
    )


def _stack(rows: Sequence[Rows]) -> NDArray[np.float64]:
    """All rows over the union of their variables; columns without an entry are left out."""
    start: dict[int, int] = {}
    width = 0
    for part in rows:
        for leaf, size in zip(part.leaves, part.sizes, strict=True):
            if leaf not in start:
                start[leaf] = width
                width += size
    used = np.zeros(width, dtype=bool)
    spread = []
    for part in rows:
        columns = np.concatenate(
            [
                np.arange(start[n], start[n] + s)
                for n, s in zip(part.leaves, part.sizes, strict=True)
            ]
        )
        spread.append(columns)
        used[columns[np.any(part.matrix != 0, axis=0)]] = True
    place = np.cumsum(used) - 1
    whole = np.zeros((sum(p.matrix.shape[0] for p in rows), max(int(used.sum()), 1)))
    at = 0
    for part, columns in zip(rows, spread, strict=True):
        m = part.matrix.shape[0]
        keep = used[columns]
        whole[at : at + m, place[columns[keep]]] = part.matrix[:, keep]
        at += m
    return whole
