"""What is measured rarely: surrogates, and Functions that have their own backward.

In between, a program that declares a derivative is known as one, and a gradient that came through
a Function is compared with that of the recorded operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.audit.judge import at_another_rate, replayable
from clarke.fast import Declined, Familiar
from clarke.steering import analyse

if TYPE_CHECKING:
    import torch

    from clarke.audit.judge import Case
    from clarke.deadline import Deadline
    from clarke.decide import Decision
    from clarke.fast import QuickJudge
    from clarke.kinks import Registry


def declared_before(case: Case, quick: QuickJudge) -> Decision | None:
    """SURROGATE of a program of which that was measured at an earlier call."""
    if isinstance(case.source, Familiar):
        return None
    return quick.declared.recall(case.source, moving=case.opened is not None)


def is_vouched(case: Case, quick: QuickJudge, registry: Registry) -> bool:
    """Whether a program has custom Functions, of which a comparison says enough."""
    return (
        not isinstance(case.source, Familiar)
        and bool(case.source.applied)
        and case.opened is None
        and quick.vouched.admits(case.source, registry)
    )


def found_declared(case: Case, quick: QuickJudge | None, found: Decision) -> Decision:
    """A verdict, once it is remembered if the program declares a derivative of its own."""
    if quick is None or isinstance(case.source, Familiar):
        return found
    quick.vouched.learn(case.source, found)
    return quick.declared.learn(case.source, found, moving=case.opened is not None)


def judge_opened(
    case: Case,
    quick: QuickJudge,
    registry: Registry,
    gradient: tuple[torch.Tensor, ...],
    deadline: Deadline,
    *,
    proof: bool,
) -> Decision | None:
    """What the quick judge says of a program that detaches values which move with the variables.

    With these held constant; SURROGATE where the function changes at another rate. None where the
    whole ladder is to judge.
    """
    found = quick.decide(case.trace(), case.slots, gradient, deadline, proof=proof, held=True)
    if isinstance(found, Declined) or case.opened is None:
        return None
    trace = replayable(case, registry, deadline)
    analysis = analyse(trace, registry, deadline)
    return at_another_rate(case.opened, trace, case.slots, analysis, deadline) or found


def judge_vouched(
    case: Case,
    quick: QuickJudge,
    registry: Registry,
    gradient: tuple[torch.Tensor, ...],
    deadline: Deadline,
    *,
    proof: bool,
) -> Decision | None:
    """SMOOTH of a gradient that came through custom Functions; None for the ladder to judge."""
    trace = replayable(case, registry, deadline)
    found = quick.compared(trace, case.slots, gradient, deadline, proof=proof)
    return None if isinstance(found, Declined) else found
