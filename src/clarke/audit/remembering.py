"""What an audit remembers of calls, tells those who subscribe, and shows to who asks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import ref

from clarke.audit.groups import unjudged
from clarke.audit.history import Again, History
from clarke.audit.statistics import PlaceCounter
from clarke.audit.step import Step
from clarke.audit.summary import Summary
from clarke.capture import Places
from clarke.report import Report, build_report
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.audit.groups import Group
    from clarke.audit.turn import Turn
    from clarke.capture import Location, Recorder
    from clarke.decide import Decision

    Subscriber = Callable[[Step, Report | None], Any]
    Passed = Callable[[int, Location, str], Any]
    Begun = Callable[[int, Location], Any]
    Amended = Callable[[Step], Any]


class Remembering:
    """The part of an audit that comes behind each verdict.

    Args:
        total_seconds: Time limit of judging all calls together; None for no limit.
    """

    def __init__(self, total_seconds: float | None) -> None:
        self._left = math.inf if total_seconds is None else total_seconds
        self._recorder: Recorder | None = None
        self._places = Places()
        self._counter = PlaceCounter()
        self._history = History()
        self._subscribers: list[Subscriber] = []
        self._passed: list[Passed] = []
        self._begun: list[Begun] = []
        self._amended: list[Amended] = []
        self._whole = False  # somebody may keep gradients
        # What came of a call; its decision may hold tensors.
        self._last: tuple[ref[Decision], Step, Report] | None = None

    def subscribe(
        self,
        callback: Subscriber,
        *,
        gradients: bool = True,
        begun: Begun | None = None,
        amended: Amended | None = None,
        passed: Passed | None = None,
    ) -> None:
        """Call ``callback(step, report)`` after every backward call.

        `report` is the full report with its tensors, None for a call that was not looked at. What
        the callback raises reaches the training loop.

        Args:
            callback: What to call.
            gradients: It may keep ``report.gradient``, which is then a copy of its own. False
                saves that copy; the gradient may then be the memory of ``.grad`` itself.
            begun: ``begun(number, location)`` is called before a call is judged: should the
                process be killed meanwhile, nothing else tells.
            amended: ``amended(step)`` is called when an optimizer takes a sum of accumulated
                gradients that cannot be judged: `step` is the one that added the last of them, as
                it now stands in `steps`.
            passed: ``passed(number, location, reason)`` is called in place of `callback` after a
                call that was not looked at: for programs that make many.
        """
        self._passed.append(
            passed or (lambda number, at, why: callback(Step.unseen(number, at, why), None))
        )
        self._subscribers.append(callback)
        self._last = None
        if begun is not None:
            self._begun.append(begun)
        if amended is not None:
            self._amended.append(amended)
        self._whole = self._whole or gradients

    # ---------------------------------------------------------------- results

    @property
    def steps(self) -> tuple[Step, ...]:
        """The last backward calls, up to `clarke.audit.history.KEPT`; `summary` counts all."""
        return self._history.steps

    @property
    def reports(self) -> list[Report]:
        """The last reports, as many as `steps` at most, behind the first wrong ones."""
        return self._history.reports

    def summary(self) -> Summary:
        """Statistics over all steps so far; may be asked for inside the block."""
        return self._history.summary(self._counter.places())

    # ---------------------------------------------------------------- one call

    def _remember(
        self, turn: Turn, decision: Decision, number: int, location: Location, why_ignored: str
    ) -> Report:
        joint, why = turn.join()
        last = self._last
        if last is not None and last[0]() is decision and joint is last[1].joint and not why:
            group = number if turn.group is None else turn.group.number
            again = Again(last[1], last[2], number, turn.work.seconds, location, group)
            self._counter.add(decision)
            self._history.repeat(again, turn.group)
            self._left -= again.seconds
            return last[2]
        report = build_report(decision, turn.gradient, turn.work.seconds)
        if report.correct is not True:
            report = replace(report, names=self._places.names(turn.leaves))
        self._counter.add(decision)
        step = Step(
            number=number,
            verdict=report.verdict,
            reason=report.reason,
            theorem=report.theorem,
            kinks=report.kinks,
            culprits=report.culprits,
            seconds=turn.work.seconds,
            location=location,
            looked=True,
            group=number if turn.group is None else turn.group.number,
            joint=joint,
            joint_reason=why,
            repaired=turn.repaired,
            cures=report.cures,
            ignored=why_ignored,
        )
        self._history.keep(report)
        self._add(step, report, turn.group)
        # Of a smooth step the next one mostly gets the very same decision, which nobody asks about.
        plain = decision.verdict is Verdict.SMOOTH and decision.certificate is None and not why
        self._last = (
            (ref(decision), step, report.bare()) if plain and not self._subscribers else None
        )
        return report

    def _sum_taken(self, number: int, why: str) -> None:
        """Somebody uses what call `number` added to, which cannot be judged because of `why`."""
        step = self._history.amend(number, unjudged(why))
        if step is None:
            return  # its backward pass raised
        for callback in self._amended:
            callback(step)

    def _pass(self, location: Location, why: str) -> None:
        """A call was made that nobody looked at, or at nothing but whether it is finite."""
        number = self._history.pass_by(location, why)
        if self._subscribers:
            self._tell(self._passed, number, location, why)

    def _add(self, step: Step, report: Report | None, group: Group | None = None) -> None:
        self._history.add(step, group)
        self._left -= step.seconds
        if self._subscribers:
            self._tell(self._subscribers, step, report)

    def _tell(self, subscribers: Sequence[Callable[..., Any]], *what: Any) -> None:
        # What they read (verifying a proof, for one) decides no branch of the program.
        reads = None if self._recorder is None else tuple(self._recorder.reads)
        try:
            for callback in subscribers:
                callback(*what)
        finally:
            if self._recorder is not None and reads is not None:
                self._recorder.reads.clear()
                self._recorder.reads.extend(reads)


def interrupted(number: int, location: Location, error: BaseException, seconds: float) -> Step:
    """A step whose judging did not come to an end: Ctrl-C, or an exit from a signal's handler."""
    why = f"Interrupted by {type(error).__name__} while judging step {number}."
    step = Step.unseen(number, location, why)
    undecided = Verdict.UNDECIDED
    return replace(step, verdict=undecided, joint=undecided, looked=True, seconds=seconds)
