"""One backward call: prepare, let the user's call run, judge, repair."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.arrived import arrived, of_gradient
from clarke.audit.ends import at_tensors
from clarke.audit.engine import forget, run_call
from clarke.audit.groups import held
from clarke.audit.judge import Case, alone, judge, prepare, undecided
from clarke.audit.moved import standing
from clarke.audit.ranks import NotSharedError
from clarke.audit.rarely import (
    declared_before,
    found_declared,
    is_vouched,
    judge_opened,
    judge_vouched,
)
from clarke.audit.shadowed import as_written, compiled_parts, judge_shadowed, value_of
from clarke.audit.sums import Sum, part_of
from clarke.audit.watch import GradBackup, LeafWatch, are_fresh, are_handed_on
from clarke.audit.work import Work
from clarke.capture import (
    Origin,
    all_finite,
    any_away,
    without_values,
)
from clarke.decide import Confirm, Decision
from clarke.errors import CaptureError, ClarkeError, UnseenError, in_a_line
from clarke.fast import let_go
from clarke.rerun import plain
from clarke.undo import at_the_end
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.audit.engine import BackwardCall
    from clarke.audit.groups import Accumulation, Group, Held
    from clarke.audit.hooks import HookSpy
    from clarke.audit.keep import Keeper
    from clarke.audit.meeting import Meeting
    from clarke.audit.penalized import Penalized
    from clarke.audit.ranks import Ranks
    from clarke.audit.shards import ShardBackup
    from clarke.audit.sums import Kept
    from clarke.capture import Recorder, Shadow, Shadows
    from clarke.decide import Settings
    from clarke.fast import Declined, Pending, QuickJudge
    from clarke.kinks import Registry


@dataclass(frozen=True, eq=False)
class Orders:
    """How calls are to be judged.

    Attributes:
        wrt: The leaves to judge, or None for all that it reaches.
        penalized: Those that are not judged beside others, unless `wrt` names them.
        settings: Limits of the search.
        confirmed: Confirm a positive verdict by running the program.
        undoable: Keep what ``.grad`` held, to be able to put it back.
        quick: Judges common cases from recorded values alone; None to climb the whole ladder.
        proof: Somebody is going to see the certificate.
        seconds: Time limit of all that clarke does about the call.
        spy: Knows where hooks may have changed gradients, which `quick` cannot see.
        whole: Somebody is going to look at the gradient of this call, or keep it.
        ranks: The other processes that train together with this one, if there are any.
        shadows: Knows what compiled functions were made from.
        keeps: What is not proved right is written to a file afterwards.
    """

    wrt: tuple[torch.Tensor, ...] | None
    penalized: Penalized
    settings: Settings
    confirmed: bool
    undoable: bool
    quick: QuickJudge | None = None
    spy: HookSpy | None = None
    whole: bool = True
    proof: bool = True
    seconds: float | None = None
    ranks: Ranks | None = None
    shadows: Shadows | None = None
    keeps: bool = False


class Turn:
    """One call that is looked at. After `run`, its attributes hold what came of it.

    Attributes:
        result: What the call returns to the user.
        decision: On its gradient; None if it reaches none of the leaves to be judged.
        gradient: AD's gradient, one tensor per variable.
        error: An exception of clarke's own that left the gradient undecided.
        group: The accumulated calls that this one continues, if it accumulates.
        work: What clarke's own part took.
        repaired: The gradient was replaced.
    """

    def __init__(
        self,
        number: int,
        call: BackwardCall,
        recorder: Recorder,
        registry: Registry,
        accumulation: Accumulation,
        orders: Orders,
    ) -> None:
        self._number = number
        self._call = call
        self._recorder = recorder
        self._registry = registry
        self._accumulation = accumulation
        self._orders = orders
        self.work = Work(orders.seconds)
        # Hooks that replays register are none of the user's.
        self._unnoted = contextlib.nullcontext() if orders.spy is None else orders.spy.unnoted
        self._case: Case | None = None
        self._backup: GradBackup | ShardBackup | None = None
        self._watch: LeafWatch | None = None
        self._early: Decision | None = None
        self._pending: Pending | None = None  # the quick judge asks for the gradient
        self._meeting: Meeting | None = None  # other processes have a part in the call
        self._kept: Kept | str = ""  # what later calls need that add to the gradient
        self._compiled: tuple[Shadow, ...] | None = None  # its gradient is a compiled program's
        self.result: Any = None
        self.decision: Decision | None = None
        self.gradient: tuple[torch.Tensor, ...] = ()
        self.error: Exception | None = None
        self.group: Group | None = None
        self.repaired = False

    def run(self) -> None:
        """Do everything up to the decision; what the user's call raises passes through."""
        with self.work:
            try:
                self._prepare()
            except Exception as error:  # noqa: BLE001 - no failure here may reach the training
                self.error, self._case = error, None
        try:
            self._call_engine()
        finally:
            if self._watch is not None:
                self._watch.stop()
        with self.work:
            try:
                if self.error is not None:
                    self._excuse(self.error)
                elif self._case is not None:
                    with self._unnoted:
                        self._judge(self._case)
                    self._keep_for_sums(self._case)
            except Exception as error:  # noqa: BLE001 - as above
                self.error = error
            finally:
                self._release()
            if self.error is not None:
                self.decision = undecided(self.error)
            if self._orders.shadows is not None:
                self._orders.shadows.learn(self._missed)

    def _keep_for_sums(self, case: Case) -> None:
        """Keep what ran while it is there, as later calls may add to the gradient."""
        if self._meeting is not None:
            self._kept = "it was judged together with other processes"
        elif self.group is not None and self.decision is not None:
            with alone(draws=False), self._unnoted:
                self._kept = self._accumulation.keep(self.group, case, self.decision)

    def _call_engine(self) -> None:
        try:
            self.result = run_call(self._call, self._recorder)
        except BaseException:
            if self._early is not None:
                self._release()
            raise
        if self._case is None or self._case.familiar is None:
            forget(self._call, self._recorder)

    def _release(self) -> None:
        """Forget a known program, of which nothing is kept; others are forgotten at once."""
        case = self._case
        if case is None or case.familiar is None or not self._call.frees_graph:
            return
        verdict = None if self.decision is None else self.decision.verdict
        open_ = verdict in (None, Verdict.UNDECIDED)
        if open_ or (self._orders.keeps and verdict is not None and not verdict.correct):
            self._case = replace(case, source=case.trace())  # looked at afterwards
        case.familiar.retraced.release(self._recorder)

    def _prepare(self) -> None:
        if self._call.refused:
            raise CaptureError(self._call.refused)
        self._call = at_tensors(self._call, self._recorder)
        orders = self._orders
        shadows = orders.shadows
        whole = orders.confirmed or self._call.create_graph or bool(shadows)
        quick = None if whole else orders.quick
        wrt = orders.wrt if orders.ranks is None else orders.ranks.wholes(orders.wrt)
        case = prepare(self._call, self._recorder, wrt, orders.penalized, self.work.deadline, quick)
        if case is None:
            return
        self._compiled = compiled_parts(self._call, case, shadows, orders.ranks)
        accumulates = self._call.accumulates
        if orders.ranks is not None:
            self._meeting = orders.ranks.meeting(self._call, case.leaves, orders.wrt)
        meeting = self._meeting
        with alone(draws=meeting is not None) as own:
            if accumulates:
                leaves = self._leaves(case)
                self.group = self._accumulation.begin(
                    leaves, self._number, self._recorder, self._held_by
                )
                values = orders.undoable
                self._backup = (
                    GradBackup(leaves, values=values)
                    if meeting is None
                    else meeting.backup(leaves, values=values)
                )
            self._case = self._kept_whole(self._judged_early(case, own))
            known = self._early is not None and not orders.whole
            maybe = accumulates and (known or self._compiled is not None)
            untouched = maybe and are_fresh(case.leaves)
            if meeting is not None:
                untouched = False
                meeting.begin()
            if accumulates and not untouched:
                self._watch = (
                    LeafWatch(case.leaves, self._call.is_beside, all_=not known)
                    if meeting is None
                    else meeting.watch(case, self._early, self._call.is_beside)
                )
                at_the_end(self._watch.stop)
                self._watch.start()

    def _judged_early(self, case: Case, own: alone) -> Case:
        """The case, without the recorded values if the quick judge has no more need of them.

        Before the backward pass: autograd frees its activations as it goes, and what is still held
        here would stay.
        """
        away = any_away(case.leaves)
        slow = away or self._compiled is not None or self._needs_replay(case)
        quick = None if slow else self._orders.quick
        if quick is None:
            return case
        if not all_finite(self._call.roots):
            return case  # what overflowed may have lost a slope on the way
        try:
            with self._unnoted:
                found = self._quickly(case, quick, own)
        except Exception:  # noqa: BLE001 - what it is not made for, the whole ladder judges
            return case
        if not isinstance(found, Decision):
            self._pending = None if found is None else found.pending
            return case
        rows_wanted = self._meeting is not None or (
            self.group is not None and self._accumulation.accumulating
        )
        if rows_wanted and found.verdict not in (Verdict.SMOOTH, Verdict.SURROGATE):
            return case  # its rows are to be put together with those of other calls
        self._early = let_go(found, quick.repeatable)
        if case.familiar is not None:
            if self._call.frees_graph:
                case.familiar.retraced.drop_values(quick.repeatable)
            return case.without_values(quick.repeatable)
        forget(self._call, self._recorder)
        return replace(case, source=without_values(case.trace(), quick.repeatable), reached=None)

    def _kept_whole(self, case: Case) -> Case:
        """The case at values of its own, where hooks may change parameters before it is judged."""
        meeting = self._meeting
        handed = are_handed_on(case.leaves) if meeting is None else meeting.is_handed_on
        if self._early is not None or not handed:
            return case
        self._pending = None  # it reads the parameters themselves
        return replace(case, source=standing(case.trace()))

    def _quickly(self, case: Case, quick: QuickJudge, own: alone) -> Decision | Declined | None:
        proof, dear = self._orders.proof, own.may_draw
        told = declared_before(case, quick)
        if told is not None or case.opened is not None:  # it may declare another rate
            return told
        if case.familiar is not None:
            return quick.recall(case.familiar, self.work.deadline, proof=proof, dear=dear)
        dear()
        trace = case.trace()
        if case.reached is not None:
            quick.repertoire.learn(trace, case.reached)
        return quick.decide(trace, case.slots, None, self.work.deadline, proof=proof, held=True)

    def _leaves(self, case: Case) -> tuple[torch.Tensor, ...]:
        """The leaves that ``.grad`` is about."""
        return case.leaves if self._meeting is None else self._meeting.those_of(case)

    @property
    def _held_by(self) -> Held:
        return held if self._meeting is None else self._meeting.held_by

    def _excuse(self, error: Exception) -> None:
        """Let other processes not wait for a part that cannot be judged."""
        ranks = self._orders.ranks
        if ranks is None or isinstance(error, NotSharedError) or not ranks.expects(self._call):
            return
        ranks.excuse(str(error) if isinstance(error, ClarkeError) else in_a_line(error))

    def _judge_together(self, case: Case, meeting: Meeting, watch: LeafWatch) -> None:
        """The verdict of all processes on the gradient that all of them were given."""
        early = self._early
        if self._compiled is not None:
            try:
                case, early = self._kept_to(case, watch.gradients(), self._compiled)
            except Exception as error:
                self._excuse(error)
                raise
        part = meeting.mine(case, watch, early, self.group)
        if meeting.later:
            self.gradient, self.decision = part.local, meeting.part(part)
            return
        self.gradient = meeting.averaged()
        confirm = Confirm.ALWAYS if self._orders.confirmed else Confirm.NEVER
        self.decision = meeting.judge(
            part,
            self.gradient,
            replace(self._orders.settings, confirm=confirm),
            self._orders.seconds,
        )

    def _kept_to(
        self, case: Case, local: tuple[torch.Tensor, ...], shadows: tuple[Shadow, ...]
    ) -> tuple[Case, Decision | None]:
        """The program of this process as it was written, if the compiled one keeps to it."""
        hooked = self._orders.confirmed or self._is_hooked(case)
        quick = None if hooked else self._orders.quick
        return as_written(case, shadows, local, self._registry, self.work.deadline, quick)

    def _judge(self, case: Case) -> None:
        together = self._meeting is not None or self._compiled is not None
        if self._early is not None and self._watch is None and not together:
            ordinary = arrived(case.leaves) if self._call.accumulates else None
            if ordinary is not None:
                self.gradient, self.decision = ordinary, of_gradient(self._early, ordinary)
                return
        with alone(draws=together) as own:
            if self._meeting is not None and self._watch is not None:
                self._judge_together(case, self._meeting, self._watch)
                return
            if self._watch is not None:
                self.gradient = self._watch.gradients()
            else:
                accumulates = self._call.accumulates
                found = [
                    x.grad if accumulates else self.result[p]
                    for x, p in zip(case.leaves, case.positions, strict=True)
                ]
                self.gradient = tuple(
                    torch.zeros_like(x, requires_grad=False) if g is None else plain(g)
                    for g, x in zip(found, case.leaves, strict=True)
                )
            if self._compiled is not None:
                self.decision = self._judge_compiled(case, self._compiled)
                return
            if self._early is not None and all_finite(self.gradient):
                self.decision = of_gradient(self._early, self.gradient)
                return
            own.may_draw()
            told = self._judged_late(case) or judge(
                case,
                self.gradient,
                self._registry,
                self._orders.settings,
                confirmed=self._orders.confirmed,
                deadline=self.work.deadline,
            )
            self.decision = found_declared(case, self._orders.quick, told)

    def _judge_compiled(self, case: Case, shadows: tuple[Shadow, ...]) -> Decision:
        """The verdict on what a compiled program returned, of which copies are kept."""
        self.gradient = tuple(g.clone() for g in self.gradient)
        confirm = Confirm.ALWAYS if self._orders.confirmed else Confirm.NEVER
        return judge_shadowed(
            case,
            shadows,
            self.gradient,
            value_of(self._call),
            self._registry,
            replace(self._orders.settings, confirm=confirm),
            self.work.deadline,
            None if self._orders.confirmed else self._orders.quick,
            proof=self._orders.proof,
            hooked=self._is_hooked(case),
        )

    def _judged_late(self, case: Case) -> Decision | None:
        """What the quick judge finds with the gradient, where it has to wait for that."""
        quick, proof = self._orders.quick, self._orders.proof
        if quick is None or not all_finite(self.gradient):
            return None
        rest = (self.gradient, self.work.deadline)
        try:
            if self._pending is not None:
                found = quick.settle(self._pending, *rest, proof=proof)
            elif case.opened is not None and not self._needs_replay(case):
                return judge_opened(case, quick, self._registry, *rest, proof=proof)
            elif is_vouched(case, quick, self._registry) and not self._needs_replay(case):
                return judge_vouched(case, quick, self._registry, *rest, proof=proof)
            else:
                return None
        except Exception:  # noqa: BLE001 - what it is not made for, the whole ladder judges
            return None
        return found if isinstance(found, Decision) else None

    def _needs_replay(self, case: Case) -> bool:
        """Whether the recorded values alone do not tell what gradient the user gets."""
        return self._orders.confirmed or self._is_hooked(case)

    def _is_hooked(self, case: Case) -> bool:
        """Whether hooks of the user's may change gradients on their way."""
        spy = self._orders.spy
        familiar = case.familiar
        slots = case.trace().slot_dtypes if familiar is None else familiar.retraced.numbers
        return spy is None or spy.reaches(slots)

    @property
    def differs(self) -> str:
        """What compiled programs computed otherwise than as written, by more than roundings.

        Not where they may have drawn other random numbers.
        """
        worst = max(self._compiled or (), key=lambda s: 0.0 if s.drew else s.gap, default=None)
        return "" if worst is None or worst.drew else worst.told

    def _missed(self) -> bool:
        """Whether part of the graph was made while nobody recorded."""
        if isinstance(self.error, UnseenError):
            return True
        unknown = self.decision is not None and self.decision.verdict is Verdict.UNDECIDED
        if not unknown or self._case is None:
            return False
        found = self._case.trace().externals.values()
        return any(e.origin is Origin.UNSEEN for e in found)

    @property
    def leaves(self) -> tuple[torch.Tensor, ...]:
        """The variables, in the order of `gradient`."""
        return () if self._case is None else self._leaves(self._case)

    def keep(self, keeper: Keeper) -> None:
        """Let the call be kept, if its gradient is not proved right."""
        if self._meeting is not None:
            keeper.left_out["its gradient is that of several processes"] = self._number
        elif self.decision is not None and self._case is not None and self.gradient:
            with alone():
                keeper.keep(self._number, self._case, self.gradient, self.decision)

    def repair(self) -> bool:
        """Put the decision's correct gradient in the place of AD's; False if it has none."""
        element = None if self.decision is None else self.decision.element
        if element is None or self._case is None:
            return False
        if self._backup is not None and self._backup.is_late():
            return False  # what is written to .grad now would be added to the next step
        with alone():
            if self._meeting is not None:
                self._meeting.replace(element, self.group)
            elif isinstance(self._backup, GradBackup):
                self._backup.replace(self.gradient, element)
            else:
                self.result = self._replaced(self._case, element)
        self.repaired = True
        return True

    def _replaced(self, case: Case, element: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        right = {id(x): (w, r) for x, w, r in zip(case.leaves, self.gradient, element, strict=True)}
        results = list(self.result)
        for position, x in enumerate(self._call.inputs):
            if id(x) not in right:
                continue
            wrong, element_part = right[id(x)]
            found = results[position]
            value = element_part.to(x.dtype).reshape(x.shape)
            if found is not None and found.requires_grad:  # create_graph: stay differentiable
                value = found + (value - wrong.to(x.dtype))
            if found is not None or bool(value.any()):
                results[position] = value
        return tuple(results)

    def undo(self) -> None:
        """Put ``.grad`` back as it was before the call."""
        if self._backup is not None:
            with alone():
                self._backup.restore()

    def join(self) -> Sum:
        """The verdict on the sum in ``.grad``, once that has its final value."""
        decision, case, meeting = self.decision, self._case, self._meeting
        if decision is None or self.group is None or case is None:
            return Sum(Verdict.UNDECIDED if decision is None else decision.verdict)
        try:
            if meeting is None and decision.verdict is Verdict.SMOOTH and not self.group.parts:
                with torch._C.DisableTorchFunction():  # nothing is computed
                    return self._added(self.group, case, decision)
            with self.work, alone(), self._unnoted:
                if meeting is not None:  # its kinks are those of all processes
                    case = replace(case, leaves=self._leaves(case))
                joint = self._added(self.group, case, decision)
                if meeting is None or meeting.later:
                    return joint
                return Sum(Verdict.CLARKE if self.repaired else decision.verdict)
        except Exception as error:  # noqa: BLE001 - no failure here may reach the training
            return Sum(Verdict.UNDECIDED, undecided(error).reason)

    def _added(self, group: Group, case: Case, decision: Decision) -> Sum:
        """The sum with this call, which is now a part of it."""
        numbers = self._accumulation.hold(group, case.leaves, self._recorder, self._held_by)
        part = None
        if decision.verdict is not Verdict.SMOOTH:
            mine = case, decision, numbers
            part = part_of(
                self._number,
                *mine,
                self.gradient,
                self._kept,
                limit=self._accumulation.limit,
                given=self.repaired or self._compiled is not None,
                repaired=self.repaired,
                apart=self._meeting is not None,
                deadline=self.work.deadline,
            )
        settings = replace(self._orders.settings, confirm=Confirm.NEVER)
        return self._accumulation.finish(group, part, settings, self.work.deadline)

    def repair_sum(self, found: Sum) -> Sum:
        """Put a correct sum in the place of a wrong one in ``.grad``, if there is one."""
        if self.group is None:
            return found
        with alone():
            if not self._accumulation.repair(self.group, found, self._recorder):
                return found
        self.repaired = True
        return replace(found, verdict=Verdict.CLARKE)
