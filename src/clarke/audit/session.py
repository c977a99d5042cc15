"""The audit itself: a context manager around a training loop."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.engine import Interceptor, forget, run_call
from clarke.audit.groups import Accumulation
from clarke.audit.hooks import HookSpy
from clarke.audit.judge import quietly
from clarke.audit.keep import Keeper
from clarke.audit.lookout import NOT_FINITE_ONLY, Lookout
from clarke.audit.notices import Notices
from clarke.audit.penalized import Penalized
from clarke.audit.policy import Answers, OnWrong, Schedule
from clarke.audit.ranks import Ranks
from clarke.audit.remembering import Remembering, interrupted
from clarke.audit.step import Step
from clarke.audit.stepping import OptimizerAside, without_hooks
from clarke.audit.turn import Orders, Turn
from clarke.capture import Operators, Recorder, Shadows
from clarke.compiled import Compiled
from clarke.deadline import check_seconds
from clarke.decide import Settings
from clarke.errors import (
    InputError,
)
from clarke.fast import EarlyTies, QuickJudge
from clarke.kinks import default_registry
from clarke.numerics import STEP_SECONDS
from clarke.report import Report, build_report
from clarke.torch_compiled import CompileNotice
from clarke.torch_others import Swaps
from clarke.undo import Door, at_the_end, leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from types import FrameType

    from typing_extensions import Self

    from clarke.audit.engine import BackwardCall


def audit(
    on_wrong: OnWrong | str | Callable[[Report], None] = OnWrong.WARN,
    *,
    on_nonfinite: OnWrong | str | Callable[[Report], None] | None = OnWrong.WARN,
    every: int = 1,
    sample: float | None = None,
    confirm_every: int = 0,
    settings: Settings | None = None,
    wrt: Sequence[torch.Tensor] | None = None,
    seconds: float | None = STEP_SECONDS,
    total_seconds: float | None = None,
    keep: str | PathLike[str] | None = None,
    only_nonfinite: bool = False,
) -> Audit:
    """Judge every backward call inside a ``with`` block.

    ``loss.backward()``, ``torch.autograd.backward`` and ``torch.autograd.grad`` are judged where
    they are called, before the optimizer changes anything. The training computes exactly what it
    would without: gradients, buffers, modes and random numbers are bit for bit the same (unless
    `on_wrong` repairs).

    Args:
        on_wrong: What to do about a gradient that is proved wrong: "warn"
            (`WrongGradientWarning`), "raise" (`WrongGradientError`, with ``.grad`` as it was
            before the call), "repair" (a correct gradient is put in its place), or a function
            that takes the `Report`. A gradient that stays undecided never triggers it.
        on_nonfinite: The same about NaN and infinity; "warn" at the first of each place,
            "repair" writes a valid gradient where one is proved to exist, and warns elsewhere.
            None: the verdict tells, nothing more.
        every: Look at every `every`-th backward call only.
        sample: Look at a call with this probability only, drawn from a private generator.
        confirm_every: Confirm the positive verdict of every so many judged calls by running the
            recorded program along its witness; 0 for never. Overrules ``settings.confirm``.
        settings: Limits of the search.
        wrt: Judge the gradient with respect to these leaves only; by default with respect to every
            leaf that the call reaches, without those (no parameters) that the program has itself
            differentiated by, with ``create_graph=True``, on the way: a penalty's interpolates.
        seconds: Time limit of clarke's own work on each judged call (recording not included). When
            it ends, that gradient stays `UNDECIDED`, with what was tried, and the training goes
            on. None for no limit.
        total_seconds: Time limit of that work on all calls together. When it has been spent,
            later calls are not looked at. None for no limit.
        keep: A folder, made if it is not there: calls whose gradient is not proved right are kept
            in it, as files that ``clarke judge`` takes up the ladder later.
        only_nonfinite: Look for NaN and infinity alone, at next to no cost: nothing is recorded
            until a gradient is not finite, which is told with its place at once; the call after it
            is recorded and judged.

    Returns:
        An `Audit`; use it as a context manager.

    Raises:
        InputError: An argument out of range.
    """
    return Audit(
        on_wrong,
        on_nonfinite=on_nonfinite,
        every=every,
        sample=sample,
        confirm_every=confirm_every,
        settings=settings,
        wrt=wrt,
        seconds=seconds,
        total_seconds=total_seconds,
        keep=keep,
        only_nonfinite=only_nonfinite,
    )


class _ThroughTheDoor:
    """`__exit__` of an audit: for a ``with`` block one that begins in C, as `Door` says why."""

    def __get__(self, audit: Audit | None, kind: type[Audit]) -> Callable[..., None]:
        return kind._leave if audit is None else audit._door.__exit__  # noqa: SLF001 - its own class


class Audit(Remembering):
    """Watches a training loop; see `audit` for the arguments.

    Attributes:
        reports: A report without tensors for each of the last judged calls, in order; the first
            wrong ones keep gradient, certificate and correct element, and stay.
    """

    def __init__(
        self,
        on_wrong: OnWrong | str | Callable[[Report], None] = OnWrong.WARN,
        *,
        on_nonfinite: OnWrong | str | Callable[[Report], None] | None = OnWrong.WARN,
        every: int = 1,
        sample: float | None = None,
        confirm_every: int = 0,
        settings: Settings | None = None,
        wrt: Sequence[torch.Tensor] | None = None,
        seconds: float | None = STEP_SECONDS,
        total_seconds: float | None = None,
        keep: str | PathLike[str] | None = None,
        only_nonfinite: bool = False,
    ) -> None:
        check_seconds(seconds)
        check_seconds(total_seconds)
        super().__init__(Answers(on_wrong, on_nonfinite), total_seconds)
        self._seconds = seconds
        self._keeper = None if keep is None else Keeper(keep)
        self._settings = settings or Settings()
        self._lookout = Lookout(on_nonfinite) if only_nonfinite else None
        self._schedule = Schedule(every, sample, confirm_every, self._settings.seed)
        self._wrt = None if wrt is None else tuple(wrt)
        self._registry = default_registry()
        self._compiled = Compiled(patient=True)
        self._operators = Operators(self._registry.keeps)
        self._quick = QuickJudge(self._registry, self._settings.seed, self._compiled)
        # Of use to a step that is judged quickly; the others would pay for it in vain.
        early = self._settings.quick and self._schedule.looks_at_all
        self._early = EarlyTies(self._compiled) if early else None
        self._spy: HookSpy | None = None
        self._stepping: OptimizerAside | None = None
        self._notice: CompileNotice | None = None
        self._door = Door()
        self._shadows: Shadows | None = None
        self._parts: tuple[
            Interceptor | HookSpy | Recorder | OptimizerAside | Shadows | CompileNotice | Swaps, ...
        ] = ()
        self._interceptor = Interceptor(self._backward)
        self._accumulation = Accumulation(self._sum_taken)
        self._penalized = Penalized()
        self._ranks = Ranks()
        self._orders: Orders | None = None
        self._ordered: tuple[object, ...] = ()  # what they were made for
        self._notices = Notices()

    # ---------------------------------------------------------------- the block

    def __enter__(self) -> Self:
        if self._recorder is not None:
            raise InputError("This audit is already running; a `with` block cannot enter it twice.")
        if torch.is_inference_mode_enabled():
            raise InputError(
                "clarke.audit was entered under torch.inference_mode, where no gradient is "
                "recorded. Open the audit outside of it; evaluation inside the audit may use it."
            )
        with quietly():
            recorder = Recorder(
                self._operators,
                self._registry.functions,
                places=self._places,
                compiled=self._compiled,
                early=self._early,
            )
        spy, stepping = (
            HookSpy(recorder),
            OptimizerAside(recorder, self._penalized, self._accumulation.doubts),
        )
        recorder.places.on_root = self._look_for_others
        self._look_for_others(recorder=recorder)
        shadows = Shadows(recorder, self._next_is_judged, self._registry.declared)
        notice = CompileNotice(
            partial(without_hooks, recorder, stepping, self._penalized, shadows, self._see_others)
        )
        self._parts = parts = (self._interceptor, spy, recorder, stepping, shadows, notice, Swaps())
        try:
            # Their ends are known first: an interrupt between any two steps leaves nothing behind.
            self._door.arm(self._close, self._end)
            for part in parts:
                part.__enter__()
            self._recorder, self._spy, self._stepping = recorder, spy, stepping
            self._notice, self._shadows = notice, shadows
            if self._lookout is not None:
                self._lookout.begin(recorder, stepping, self._glances, notice.look)
            return self  # an interrupt at this line, too, ends what has begun
        except BaseException:
            try:
                self._door.close()
            finally:
                self._end()
            raise

    __exit__ = _ThroughTheDoor()

    def _leave(self, *_exc: object) -> None:
        self._door.close()

    def _close(self) -> None:
        with quietly():
            self._accumulation.doubts.end()

    def _end(self) -> None:
        """End every part, last first; whole, once more, where an interrupt came between."""
        self._recorder = self._spy = self._stepping = self._notice = self._shadows = None
        self._orders, self._ordered = None, ()
        for part in reversed(self._parts):
            part.stop()
        self._parts = ()  # they hold the record

    # ---------------------------------------------------------------- one backward call

    def _look_for_others(self, root: object = None, recorder: Recorder | None = None) -> None:
        """Stand aside where several processes train together in a way that is not followed."""
        recorder = recorder or self._recorder
        if recorder is not None:
            recorder.stands_aside = recorder.failure or self._ranks.aside(root)
            recorder.gathered = self._ranks.gathered if self._ranks.gathered.groups() else None

    def _see_others(self, recorder: Recorder) -> None:
        """Look for the other processes where no hook tells of them."""
        self._ranks.go_blind()
        self._look_for_others(recorder=recorder)

    def _next_is_judged(self) -> bool:
        """Whether the next backward call is going to be looked at, or one of a few behind it."""
        ahead = 0 if self._shadows is None else self._shadows.ahead
        coming = range(self._history.calls + 1, self._history.calls + 2 + ahead)
        return self._left > 0 and any(map(self._schedule.looks_at, coming))

    def _backward(self, call: BackwardCall) -> Any:
        if self._stepping is not None:
            self._stepping.recover()  # which may put the recorder back among the modes
        if self._notice is not None:
            self._notice.look()
        recorder = self._recorder
        recorded = recorder is not None and not recorder.rests
        try:
            if recorder is not None and recorder.rests:  # and so the call is not judged
                return self._left_out(call, recorder)
            return self._looked_at(call)
        finally:
            if recorder is not None:
                recorder.recover()
            if self._lookout is not None:
                self._lookout.after(recorded=recorded)
            elif self._shadows is not None:
                self._shadows.rest(rests=not self._next_is_judged())

    def _left_out(self, call: BackwardCall, recorder: Recorder) -> Any:
        """Let a call run that nobody looks at, in a program of which nothing is recorded."""
        number = self._history.calls + 1
        location = recorder.places.here()[0]
        self._penalized.note(call)
        result = call.run()
        if self._lookout is None:
            self._pass(location, self._why_left_out(number))
            return result
        found = self._lookout.look(call, result, number)
        if found is None:
            self._pass(location, NOT_FINITE_ONLY)
            return result
        decision, gradient, leaves = found
        report = replace(build_report(decision, gradient), names=self._places.names(leaves))
        step = Step.unseen(number, location, report.reason)
        verdict = report.verdict
        self._add(replace(step, verdict=verdict, joint=verdict, looked=True), report)
        answer = self._answers.to(verdict, gradient)
        if answer is not None:
            answer.give(report, location, repaired=False)
        return result

    def _why_left_out(self, number: int) -> str:
        """Why a call is not looked at; "" if it is."""
        if self._left <= 0:
            return "Left out, since the time for all calls (`total_seconds`) has been spent."
        return "" if self._schedule.looks_at(number) else "Left out by `every` or `sample`."

    @leaves_no_trace
    def _looked_at(self, call: BackwardCall) -> Any:
        recorder = self._recorder
        if recorder is None:  # pragma: no cover - the interceptor is removed with the recorder
            return call.run()
        # Should an interrupt come between what is switched and what switches it back:
        at_the_end(partial(setattr, recorder, "paused", False))
        at_the_end(partial(setattr, self._spy, "quiet", False))
        at_the_end(self._interceptor.listen)
        self._penalized.note(call)
        self._look_for_others()
        if recorder.stands_aside:
            call = replace(call, refused=recorder.stands_aside)
        number = self._history.calls + 1
        location = recorder.places.here()[0]
        if why := self._why_left_out(number):
            result = run_call(call, recorder)
            forget(call, recorder)
            self._pass(location, why)
            return result
        orders = self._present_orders()
        turn = Turn(number, call, recorder, self._registry, self._accumulation, orders)
        for callback in self._begun:
            callback(number, location)
        try:
            turn.run()
        except BaseException as error:
            if turn.work.interrupted:
                self._add(interrupted(number, location, error, turn.work.seconds), None)
            raise
        if turn.decision is None:
            self._pass(location, "It reaches none of the leaves of `wrt`.")
            return turn.result
        self._notices.of_failure(turn.error, location)
        self._notices.of_kernels(turn.differs, location)
        if self._keeper is not None:
            turn.keep(self._keeper)
        self._conclude(turn, turn.decision, number, location)
        return turn.result

    def _present_orders(self) -> Orders:
        """How the next call is to be judged: mostly as the one before."""
        confirmed = self._schedule.confirms(self._history.judged + 1)
        present = (confirmed, self._spy, self._whole, bool(self._subscribers), self._ranks.together)
        if self._orders is None or self._ordered != present:
            self._ordered = present
            self._orders = Orders(
                self._wrt,
                self._penalized,
                self._settings,
                confirmed=confirmed,
                undoable=self._answers.undoes,
                quick=self._quick if self._settings.quick else None,
                spy=self._spy,
                whole=self._whole,
                proof=bool(self._subscribers),
                seconds=self._seconds,
                ranks=self._ranks if self._ranks.together else None,
                shadows=self._shadows,
                keeps=self._keeper is not None,
            )
        return self._orders

    def _glances(self, switch: bool) -> None:  # noqa: FBT001 - as a switch is
        self._interceptor.glance = self._glance if switch else None

    def _glance(
        self, caller: FrameType, result: Any, roots: Any, *args: Any, **kwargs: Any
    ) -> bool:
        """Whether a call at rest that looks for NaN alone is done with: its gradient is finite."""
        accumulates = kwargs.get("accumulate_grad", False)
        if args[2] or self._lookout is None:  # it creates a graph
            return False
        if not self._lookout.passes(result, roots, args[3], accumulates=accumulates):
            return False
        self._pass(self._places.line(caller), NOT_FINITE_ONLY)
        return True
