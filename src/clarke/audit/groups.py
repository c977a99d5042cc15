"""Several backward calls that add up in ``.grad`` are one gradient: which calls those are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from clarke.audit.doubts import Doubts, Version, is_nonzero
from clarke.audit.sums import ACCUMULATING, ALWAYS, Kept, Part, Sum, judge_sum, kept_of, unjudged
from clarke.capture import TensorTable
from clarke.numerics import LOST_TERMS
from clarke.steering import unit_roundoff
from clarke.torch_others import Weak
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.audit.judge import Case
    from clarke.capture import Recorder
    from clarke.deadline import Deadline
    from clarke.decide import Decision, Settings

    Held = Callable[[torch.Tensor], torch.Tensor | None]

_PARTS = 64  # a .grad that nobody clears must not let the record grow
_UNSEEN = "a .grad held values that clarke did not see being computed"


@dataclass(eq=False)
class Group:
    """The calls whose gradients the same ``.grad`` holds; `broken` says why no sum is judged.

    `size` counts all calls, `parts` holds those that are not smooth. `shifts` are what repairs have
    added to the sum, by the number of the leaf; `late` says that judging the parts together took
    more than the time. `doubtful` says why some of
    the leaves that the last call added to hold more than these. Of `counted_calls`, a history has
    counted the verdict `counted` on their sum. Where several processes train together, `programs`
    are those of the `parts`, as they are sent, and `unsent` says why one is missing. `coarsest` is
    the type of the sums that rounds the most.
    """

    number: int
    size: int = 0
    parts: list[Part] = field(default_factory=list)
    versions: dict[int, Version] = field(default_factory=dict)
    shifts: dict[int, torch.Tensor] = field(default_factory=dict)
    late: bool = False
    broken: str = ""
    doubtful: str = ""
    programs: list[bytes] = field(default_factory=list)
    unsent: str = ""
    counted_calls: int = 0
    counted: Verdict | None = None
    coarsest: torch.dtype = torch.float64

    def add_shifts(self, shifts: Mapping[int, torch.Tensor]) -> None:
        """What repairs have added."""
        for number, shift in shifts.items():
            earlier = self.shifts.get(number)
            self.shifts[number] = shift if earlier is None else earlier + shift


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
        self._first = 0  # the first group: nobody knows yet whether gradients add up
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
        plainly = held_by is held
        for leaf in leaves:
            gradient = leaf.grad if plainly else held_by(leaf)
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
        kinds = (leaf.dtype for leaf, _ in going_on)
        group.coarsest = max((group.coarsest, *kinds), key=unit_roundoff)
        for leaf, why in doubtful:
            self.doubts.add(leaf, number, why, recorder)
        group.doubtful = doubtful[0][1] if doubtful else ""
        return group

    def _merged(self, number: int, continued: dict[int, Group]) -> Group:
        """The groups that call `number` continues, as one, or a new one."""
        if not continued:
            self._first = self._first or number
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
            group.late = group.late or other.late
            group.add_shifts(other.shifts)
        return group

    def finish(
        self, group: Group, part: Part | None, settings: Settings, deadline: Deadline
    ) -> Sum:
        """Add a judged call to its group, after `hold`; with a part unless it is smooth.

        Returns:
            The verdict on the accumulated sum.
        """
        group.size += 1
        if part is not None and not group.broken:
            group.parts.append(part)
        if len(group.parts) > _PARTS:
            group.broken = f"more than {_PARTS} of its parts are not smooth"
        if group.broken:
            group.parts.clear()
            return Sum(Verdict.UNDECIDED, unjudged(group.broken))
        if group.size * unit_roundoff(group.coarsest) > LOST_TERMS:
            kind = str(group.coarsest).removeprefix("torch.")
            why = f"{group.size} gradients, added up in {kind}, may have lost a good part of it"
            return Sum(Verdict.UNDECIDED, unjudged(why))
        found = judge_sum(
            group.parts, group.shifts, group.size, settings, deadline, judge=not group.late
        )
        group.late = group.late or found.late
        if group.doubtful and not found.why:
            why = f"Where .grad holds more, judged when it is used: {group.doubtful}."
            return Sum(found.verdict, why)
        return found

    def hold(
        self,
        group: Group,
        leaves: Sequence[torch.Tensor],
        recorder: Recorder,
        held_by: Held = held,
    ) -> tuple[int, ...]:
        """What ``.grad`` of some leaves is now is what a group has put there; their numbers."""
        for leaf in leaves:
            gradient = held_by(leaf)
            if gradient is not None:
                version = Version.of(gradient, recorder)
                self._held.set(leaf, _Held(Weak(gradient), version, group))
        return self._numbered(leaves)

    def repair(self, group: Group, found: Sum, recorder: Recorder) -> bool:
        """Put a correct sum in the place of a wrong one; False if there is none."""
        leaves = self.leaves(found.order)
        if found.shifts is None or any(leaf is None for leaf in leaves):
            return False
        with torch.no_grad():
            group.add_shifts(found.shifts)
            for leaf, shift in zip(leaves, found.shifts.values(), strict=True):
                if leaf is None:  # pragma: no cover - looked at above
                    continue
                added = shift.to(leaf.device, leaf.dtype).reshape(leaf.shape)
                if leaf.grad is not None:
                    leaf.grad.add_(added)
                elif bool(added.any()):
                    leaf.grad = added
        self.hold(group, [x for x in leaves if x is not None], recorder)
        return True

    def leaves(self, numbers: Sequence[int]) -> tuple[torch.Tensor | None, ...]:
        """The variables with some numbers; None for what is gone."""
        known = {entry.value: entry() for entry in self._numbers.entries.values()}
        return tuple(known.get(n) for n in numbers)

    def _number(self, leaf: torch.Tensor) -> int:
        found = self._numbers.get(leaf)
        if found is None:
            self._count += 1
            found = self._count
            self._numbers.set(leaf, found)
        return found

    @property
    def limit(self) -> float:
        """Bytes of rows, and of a program, that are kept of a part for later ones."""
        return ACCUMULATING if self.accumulating else ALWAYS

    def keep(self, group: Group, case: Case, decision: Decision) -> Kept | str:
        """The program of a call that is not smooth, for later calls of its group, or why not."""
        if decision.verdict is Verdict.SMOOTH:
            return ""
        if decision.out_of_time:
            return "time ran out when it was judged"
        if decision.verdict in (Verdict.NONFINITE, Verdict.SURROGATE):
            return f"it is {decision.verdict.name}"
        if not (self.accumulating or group.number == self._first):
            return "that was before it was clear that gradients add up"
        return kept_of(case, self._numbered(case.leaves), self.limit)

    def _numbered(self, leaves: Sequence[torch.Tensor]) -> tuple[int, ...]:
        return tuple(self._number(x) for x in leaves)
