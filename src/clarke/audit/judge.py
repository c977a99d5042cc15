"""From one engine call to a decision: trace, variables, gradient, verdict."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.constants import attached, is_known, is_moved, owned
from clarke.audit.ends import inner_ends
from clarke.audit.moved import as_read
from clarke.capture import (
    Recorder,
    Trace,
    brought,
    brought_home,
    collect_opened,
    collect_trace,
    reach,
    refilled,
    saving_plainly,
)
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide import Confirm, Decision, Settings, decide
from clarke.decide.detached import declared_rate, opened_value
from clarke.devices import RandomStates, device_types
from clarke.errors import ClarkeError, InputError, OutOfTimeError, in_a_line
from clarke.fast import Familiar, QuickJudge
from clarke.steering.fixed import narrowed
from clarke.steering.memory import only_by_steps
from clarke.torch_compiled import compiles_backward, plain_backward
from clarke.torch_others import is_accompanied
from clarke.torch_private import at_once, saved_tensors_hooks
from clarke.undo import at_the_end
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self

    from clarke.audit.engine import BackwardCall
    from clarke.audit.penalized import Penalized
    from clarke.capture import Reached
    from clarke.kinks import Registry
    from clarke.steering import Analysis


@dataclass(frozen=True, eq=False)
class Case:
    """What is to be judged, taken before the engine frees the graph.

    Attributes:
        source: What ran, or a program that ran before and did so again, whose trace is yet to be
            made.
        opened: The same with what detached values were computed from, where there are any.
        slots: External slots of the variables.
        leaves: The variables themselves.
        positions: For `torch.autograd.grad`, the position of each variable among the results.
        reached: What is there to know the program by the next time.
        dropped: Of a known program, the operations whose values have been let go.
    """

    source: Trace | Familiar
    opened: Trace | None
    slots: tuple[int, ...]
    leaves: tuple[torch.Tensor, ...]
    positions: tuple[int, ...]
    reached: Reached | None = None
    dropped: Callable[[Any], bool] | None = None

    @property
    def familiar(self) -> Familiar | None:
        """The known program, if it is one whose trace has not been made."""
        return self.source if isinstance(self.source, Familiar) else None

    def without_values(self, dropped: Callable[[Any], bool]) -> Case:
        """The same, once a known program has let the values of these operations go."""
        made = object.__new__(Case)  # every step needs one, and `replace` takes long
        made.__dict__.update(self.__dict__, dropped=dropped)
        return made

    def trace(self) -> Trace:
        """What ran."""
        if isinstance(self.source, Familiar):
            return self.source.retraced.trace(self.dropped)
        return self.source


def prepare(
    call: BackwardCall,
    recorder: Recorder,
    wrt: Sequence[torch.Tensor] | None,
    penalized: Penalized,
    deadline: Deadline = UNLIMITED,
    quick: QuickJudge | None = None,
) -> Case | None:
    """The case of a call; None if it reaches none of `wrt`.

    Args:
        call: The call.
        recorder: The record.
        wrt: The leaves to judge, or None for all that it reaches.
        penalized: Those that are not judged beside others, unless `wrt` names them.
        deadline: When to give up.
        quick: Knows the programs that ran before; None to analyse every one.

    Raises:
        ClarkeError: The call cannot be judged; says why.
    """
    inner = inner_ends(call, recorder)
    output = _scalar(call, recorder)
    reached = None if quick is None or inner else reach(recorder, output)
    if quick is not None and reached is not None:
        case = _familiar(call, quick, reached, wrt, penalized)
        if case is not None:
            return case
    trace = collect_trace(recorder, output, ends=inner, deadline=deadline)
    trace, moved = as_read(trace, output)
    leaves = {e.slot: e.tensor if e.gathered is None else e.gathered for e in trace.leaves()}
    leaves.update(moved)
    unique = _chosen(call, leaves, wrt, penalized)
    if wrt is not None and not unique:
        return None
    trace = owned(trace, tuple(unique))
    opened = collect_opened(recorder, output, trace, tuple(unique), inner)
    opened = None if opened is None else owned(as_read(opened, output)[0], tuple(unique))
    if opened is not None:
        level = _nothing_stays if quick is None else quick.level
        steps = only_by_steps(trace, level)
        rest = attached(trace, but=frozenset(trace.externals) - steps)
        if not is_moved(opened, rest, tuple(unique), level):
            trace, opened = attached(trace, but=steps) if is_known(opened) else trace, None
    return Case(
        source=trace,
        opened=opened,
        slots=tuple(unique),
        leaves=tuple(x for _, x in unique.values()),
        positions=tuple(p for p, _ in unique.values()),
        reached=reached if opened is None else None,
    )


def _nothing_stays(_func: Any, _dtype: torch.dtype) -> bool:
    return False


def _familiar(
    call: BackwardCall,
    quick: QuickJudge,
    reached: Reached,
    wrt: Sequence[torch.Tensor] | None,
    penalized: Penalized,
) -> Case | None:
    """The case of a call whose program is known; None for any other, and where it reaches none."""
    for retraced, plans in quick.repertoire.find(reached):
        leaves = {number: retraced.leaf(number) for number in retraced.structure.leaves}
        unique = _chosen(call, leaves, wrt, penalized)
        if not unique:
            return None
        if not retraced.holds_for(unique, quick.level):
            continue
        plan = quick.repertoire.plan(retraced.structure, plans, tuple(unique))
        return Case(
            source=Familiar(retraced, plan),
            opened=None,
            slots=tuple(unique),
            leaves=tuple([x for _, x in unique.values()]),
            positions=tuple([p for p, _ in unique.values()]),
        )
    return None


def _chosen(
    call: BackwardCall,
    leaves: Mapping[int, torch.Tensor],
    wrt: Sequence[torch.Tensor] | None,
    penalized: Penalized,
) -> dict[int, tuple[int, torch.Tensor]]:
    """The leaves to judge, by slot, with their place in `inputs`.

    Raises:
        ClarkeError: Some input is no leaf, or a leaf is complex.
    """
    if wrt is None and not call.inputs and not penalized:  # most often
        unique = {slot: (0, leaf) for slot, leaf in leaves.items()}
        _refuse_complex(leaves.values())
        return unique
    chosen: list[tuple[int, int]] = [(0, slot) for slot in leaves]
    if call.inputs:
        known = {id(x): slot for slot, x in leaves.items()}
        chosen = []
        for position, x in enumerate(call.inputs):
            if id(x) in known:
                chosen.append((position, known[id(x)]))
    elif wrt is None and penalized:
        chosen = [c for c in chosen if leaves[c[1]] not in penalized] or chosen
    if wrt is not None:
        wanted = {id(x) for x in wrt}
        chosen = [c for c in chosen if id(leaves[c[1]]) in wanted]
    unique = {}
    for position, slot in chosen:
        unique.setdefault(slot, (position, leaves[slot]))
    _refuse_complex([x for _, x in unique.values()])
    return unique


def _refuse_complex(variables: Iterable[torch.Tensor]) -> None:
    if True in [x.dtype.is_complex for x in variables]:
        raise InputError("A variable is complex; a Clarke gradient needs real variables.")


def _scalar(call: BackwardCall, recorder: Recorder) -> torch.Tensor:
    """The number whose gradient the call computes: ``sum of <root, weight>``, recorded.

    Several roots and vector-valued roots are combined by operations of clarke's own, which add to
    the record but leave the user's graph as it is.
    """
    if any(r.is_complex() for r in call.roots):
        raise InputError("The backward call started at a complex tensor; clarke needs a real one.")
    pairs = [(r, w) for r, w in zip(call.roots, call.weights, strict=True) if w is not None]
    if not pairs:
        raise InputError("Nothing that the backward call starts at requires a gradient.")
    first, weight = pairs[0]
    if len(pairs) == 1 and first.numel() == 1 and recorder.slot_of(first) is not None:
        with torch._C._DisableTorchDispatch():  # noqa: SLF001 - has no public name
            plain = weight.detach().item() == 1
        if plain:
            return first
    with (
        torch.enable_grad(),
        torch.autocast(first.device.type, enabled=False),
        saving_plainly(),
    ):
        total: torch.Tensor | None = None
        for root, w in pairs:
            term = (root * w.detach()).sum()
            total = term if total is None else total + term
    if total is None:  # pragma: no cover - pairs is not empty
        raise InputError("Nothing that the backward call starts at requires a gradient.")
    return total


def judge(
    case: Case,
    gradient: tuple[torch.Tensor, ...],
    registry: Registry,
    settings: Settings,
    *,
    confirmed: bool,
    deadline: Deadline = UNLIMITED,
) -> Decision:
    """Climb the whole ladder, apart from the user's modes and random generators.

    Raises:
        Exception: Whatever goes wrong; the caller turns it into UNDECIDED.
    """
    settings = replace(settings, confirm=Confirm.ALWAYS if confirmed else Confirm.NEVER)
    with alone():
        return decided(case, gradient, registry, settings, deadline)


def decided(
    case: Case,
    gradient: tuple[torch.Tensor, ...],
    registry: Registry,
    settings: Settings,
    deadline: Deadline,
    *,
    given: bool = False,
) -> Decision:
    """The verdict on a gradient, which somebody else may have `given`."""
    trace = replayable(case, registry, deadline)
    own = tuple(map(brought, gradient))
    decision = decide(trace, registry, case.slots, own, settings, given=given, deadline=deadline)
    if decision.element is not None:
        places = zip(decision.element, gradient, strict=True)
        decision = replace(decision, element=tuple(e.to(g.device) for e, g in places))
    if decision.verdict.correct is None or case.opened is None:
        return decision
    return at_another_rate(case.opened, trace, case.slots, decision.analysis, deadline) or decision


def replayable(case: Case, registry: Registry, deadline: Deadline) -> Trace:
    """What ran, with the values that rules need, where replays run."""
    trace = brought_home(refilled(case.trace(), registry.keeps, deadline))
    return narrowed(trace, case.slots)


def at_another_rate(
    opened: Trace,
    trace: Trace,
    slots: tuple[int, ...],
    analysis: Analysis | None,
    deadline: Deadline,
) -> Decision | None:
    """SURROGATE where a program that detaches values changes at another rate than with these."""
    value = opened_value(brought_home(opened), trace, slots, deadline)
    return declared_rate(analysis, slots, (value,), deadline)


class alone(contextlib.AbstractContextManager[Any]):  # noqa: N801 - used as a function
    """Run clarke's own computations as if nothing of the user's were switched on.

    No mode of the user's (and no recorder) sees them, autocast and anomaly detection are off,
    gradients are on, tensors are saved as they are, and torch's random state is afterwards as it
    was. A class, since a generator with as many managers takes several times as long.

    Args:
        draws: Something may draw random numbers; else `may_draw` has to be called before that.
    """

    def __init__(self, *, draws: bool = True) -> None:
        self._draws = draws
        self._random: RandomStates | None = None
        self._entered: list[contextlib.AbstractContextManager[Any]] = []

    def may_draw(self) -> None:
        """From here on, random numbers may be drawn."""
        if self._random is None:
            self._random = RandomStates()

    def __enter__(self) -> Self:
        at_the_end(self._end)
        try:
            self._begin()
        except BaseException:
            # Before those around it: what the innermost one found is what it puts back.
            self._end()
            raise
        return self

    def _begin(self) -> None:
        if self._draws:
            self.may_draw()
        self._enter(torch._C.DisableTorchFunction())
        self._enter(torch._C._DisableTorchDispatch())  # noqa: SLF001 - has no public name
        if not torch.is_grad_enabled():
            self._enter(torch.enable_grad())
        for kind in device_types():
            if torch.is_autocast_enabled(kind):
                self._enter(torch.autocast(kind, enabled=False))
        if torch.is_anomaly_enabled():
            self._enter(torch.autograd.set_detect_anomaly(mode=False))
        if saved_tensors_hooks() is not None:
            self._enter(saving_plainly())
        if compiles_backward():
            self._enter(plain_backward())

    def _enter(self, manager: Any) -> None:
        at_once(manager.__enter__, partial(self._entered.append, manager))

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        """Put everything back; also where that has been done."""
        if self._random is not None:
            self._random.restore()
            self._random = None
        while self._entered:
            leave = partial(self._entered[-1].__exit__, None, None, None)
            at_once(leave, self._entered.pop)


def quietly() -> contextlib.AbstractContextManager[Any]:
    """The same, where there are modes of the user's that would see what is computed."""
    return alone(draws=False) if is_accompanied() else contextlib.nullcontext()


def undecided(error: Exception) -> Decision:
    """What a failure of clarke's own says of the gradient: nothing."""
    if isinstance(error, ClarkeError):
        late = isinstance(error, OutOfTimeError)
        return Decision(Verdict.UNDECIDED, str(error), out_of_time=late)
    return Decision(
        Verdict.UNDECIDED,
        f"clarke itself failed while judging this gradient ({in_a_line(error)}). "
        "The training is not affected; please report it with the lines of the program.",
    )
