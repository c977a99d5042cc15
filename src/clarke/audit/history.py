"""What an audit remembers of its steps: exact counts of all, and the last ones themselves."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from weakref import ref

from clarke.audit.step import Step
from clarke.audit.summary import NAMED, Summary
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.audit.groups import Group
    from clarke.audit.statistics import PlaceStatistics
    from clarke.capture import Location
    from clarke.report import Report

KEPT: Final = 10_000  # steps and reports; about 1 kB each
_GROUPS = 64  # so many may be gone ones
_PROOFS_KEPT = 8  # wrong gradients whose proof, with its tensors, stays in `reports`


class History:
    """Grows with the steps up to `KEPT` of them, then no more.

    Attributes:
        calls: Backward calls so far.
        judged: Those that have a report.
    """

    def __init__(self, kept: int = KEPT) -> None:
        # Of a call that was not looked at, what makes a step of it.
        self._steps: deque[Step | tuple[int, Location, str]] = deque(maxlen=kept)
        self._reports: deque[Report] = deque(maxlen=kept)
        self._proved: list[Report] = []  # wrong ones that were among the last and are no more
        self._proofs = 0
        self._looked = 0
        self._repaired = 0
        self._seconds = 0.0
        self._verdicts: Counter[Verdict] = Counter()
        self._joint: Counter[Verdict] = Counter()
        # By number. A group lives as long as a ``.grad`` that holds its sum.
        self._groups: dict[int, ref[Group]] = {}
        self._prune_at = _GROUPS
        self._firsts: dict[Verdict, Step] = {}
        self.calls = 0
        self.judged = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """The last backward calls."""
        return tuple(map(_step, self._steps))

    @property
    def reports(self) -> list[Report]:
        """The first wrong reports with their proofs, and the last ones."""
        return [*self._proved, *self._reports]

    def keep(self, report: Report) -> None:
        """Keep a report: of the first wrong gradients all of it, of others no tensors."""
        self.judged += 1
        if report.verdict is Verdict.NOT_CLARKE and self._proofs < _PROOFS_KEPT:
            self._proofs += 1
            report = replace(report, gradient=tuple(g.clone() for g in report.gradient))
        else:
            report = report.bare()
        if len(self._reports) == self._reports.maxlen and self._reports[0].gradient:
            self._proved.append(self._reports[0])
        self._reports.append(report)

    def keep_sum(self, report: Report) -> None:
        """Keep the report of a sum that is wrong although its parts are not, if there is room."""
        if report.verdict is Verdict.NOT_CLARKE and self._proofs < _PROOFS_KEPT:
            self._proofs += 1
            self._proved.append(report)

    def add(self, step: Step, group: Group | None) -> None:
        """Count a backward call.

        Args:
            step: What became of it.
            group: The calls whose gradients add up with its own, if it was judged and accumulates.
        """
        self._steps.append(step)
        self.calls += 1
        self._looked += step.looked
        self._repaired += step.repaired
        self._seconds += step.seconds
        if step.verdict is not None:
            self._verdicts[step.verdict] += 1
            self._firsts.setdefault(step.verdict, step)
        if group is None:
            return
        group.counted_calls += 1
        self._count_sum(group, step)

    def pass_by(self, location: Location, why: str) -> int:
        """Count a backward call that was not looked at, in as little time as possible."""
        self.calls += 1
        self._steps.append((self.calls, location, why))
        return self.calls

    def amend(self, number: int, why: str) -> Step | None:
        """Say of the sum that call `number` was the last to add to that it cannot be judged.

        Returns:
            The step as it now is; None if its backward pass raised, or it is none of the last.
        """
        place = number - self.calls - 1  # from the end: steps are numbered without gaps
        if place >= 0 or -place > len(self._steps):
            return None
        step = replace(_step(self._steps[place]), joint=Verdict.UNDECIDED, joint_reason=why)
        self._steps[place] = step
        entry = self._groups.get(step.group)
        group = None if entry is None else entry()
        if group is not None:
            self._count_sum(group, step)
        return step

    def _count_sum(self, group: Group, step: Step) -> None:
        """Count the verdict on a group's sum, in place of the one on its earlier calls."""
        several = group.counted_calls > 1 or step.joint is not step.verdict
        now = step.joint if several else None
        if group.counted is not None:
            self._joint[group.counted] -= 1
        if now is not None:
            self._joint[now] += 1
        group.counted = now
        self._groups[group.number] = ref(group)
        if len(self._groups) > self._prune_at:
            self._groups = {n: g for n, g in self._groups.items() if g() is not None}
            self._prune_at = max(_GROUPS, 2 * len(self._groups))

    def summary(self, places: tuple[PlaceStatistics, ...]) -> Summary:
        """Statistics over all steps."""
        return Summary(
            calls=self.calls,
            judged=self._looked,
            verdicts=Counter(self._verdicts),
            joint=+self._joint,
            places=places,
            seconds=self._seconds,
            repaired=self._repaired,
            firsts=tuple(self._firsts[v] for v in NAMED if v in self._firsts),
        )


def _step(kept: Step | tuple[int, Location, str]) -> Step:
    return kept if isinstance(kept, Step) else Step.unseen(*kept)
