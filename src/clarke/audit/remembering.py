"""What an audit remembers of calls, tells those who subscribe, and shows to who asks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import ref

from clarke.audit.history import Again, History
from clarke.audit.ignored import Ignored
from clarke.audit.judge import quietly
from clarke.audit.policy import SUM, OnWrong
from clarke.audit.statistics import PlaceCounter
from clarke.audit.step import Step
from clarke.audit.summary import Summary
from clarke.audit.sums import unjudged
from clarke.capture import Places
from clarke.report import Report, build_report
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.audit.groups import Accumulation, Group
    from clarke.audit.policy import Answer, Answers
    from clarke.audit.sums import Sum
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
        answers: What to do about findings.
        total_seconds: Time limit of judging all calls together; None for no limit.
    """

    _accumulation: Accumulation

    def __init__(self, answers: Answers, total_seconds: float | None) -> None:
        self._answers = answers
        self._ignored = Ignored()
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

    def _conclude(self, turn: Turn, decision: Decision, number: int, location: Location) -> None:
        """Do what was asked for about a gradient, and about the sum that it adds to."""
        why = self._ignored.because(decision, location)
        answer = None if why else self._answers.to(decision.verdict, turn.gradient)
        if answer is not None and answer.policy is OnWrong.REPAIR:
            turn.repair()
        elif answer is not None and answer.policy is OnWrong.RAISE:
            turn.undo()
        joint = turn.join()
        of_sum = None if answer is not None or why else self._answer_to_sum(turn, joint, location)
        if of_sum is not None and of_sum[0].policy is OnWrong.REPAIR:
            joint = turn.repair_sum(joint)
        elif of_sum is not None and of_sum[0].policy is OnWrong.RAISE:
            turn.undo()
        report = self._remember(turn, decision, joint, number, location, why)
        if answer is not None:
            answer.give(report, location, repaired=turn.repaired)
        if of_sum is not None:
            with quietly():
                self._history.keep_sum(of_sum[1])
            of_sum[0].give(of_sum[1], location, repaired=turn.repaired, what=SUM)

    def _answer_to_sum(
        self, turn: Turn, joint: Sum, location: Location
    ) -> tuple[Answer, Report] | None:
        """What was asked for about a sum that is no good, of parts that each are, and a report."""
        decision = joint.decision
        if decision is None or self._ignored.because(decision, location):
            return None
        answer = self._answers.to(joint.verdict, joint.gradient)
        if answer is None:
            return None
        with quietly():
            report = build_report(decision, joint.gradient, turn.work.seconds)
        names = self._places.names(self._accumulation.leaves(joint.order))
        return answer, replace(report, names=names)

    def _remember(
        self,
        turn: Turn,
        decision: Decision,
        joint: Sum,
        number: int,
        location: Location,
        why_ignored: str,
    ) -> Report:
        last, own = self._last, number if turn.group is None else turn.group.number
        alike = last is not None and last[0]() is decision and joint.verdict is last[1].joint
        if last is not None and alike and joint.decision is None and not joint.why:
            again = Again(last[1], last[2], number, turn.work.seconds, location, own)
            self._counter.add(decision)
            self._history.repeat(again, turn.group)
            self._left -= again.seconds
            return last[2]
        with quietly():
            report = build_report(decision, turn.gradient, turn.work.seconds)
            if report.correct is not True:
                report = replace(report, names=self._places.names(turn.leaves))
            self._counter.add(decision)
            self._history.keep(report)
        wrong = joint.decision if joint.verdict is Verdict.NOT_CLARKE else None
        told = wrong or decision
        step = Step(
            number=number,
            verdict=report.verdict,
            reason=report.reason,
            theorem=report.theorem,
            kinks=report.kinks,
            culprits=told.culprits,
            seconds=turn.work.seconds,
            location=location,
            looked=True,
            group=own,
            joint=joint.verdict,
            joint_reason=joint.why,
            repaired=turn.repaired,
            cures=told.cures,
            ignored=why_ignored,
        )
        self._add(step, report, turn.group)
        # Of a smooth step the next one mostly gets the very same decision, which nobody asks about.
        plain = decision.verdict is Verdict.SMOOTH and decision.certificate is None
        plain = plain and not (joint.why or turn.repaired or self._subscribers)
        self._last = (ref(decision), step, report.bare()) if plain else None
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
