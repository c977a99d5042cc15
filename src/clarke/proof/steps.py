"""Steps that were kept: judged later, elsewhere, or by a later version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.capture import refilled
from clarke.deadline import Deadline
from clarke.decide import Decision, Settings, decide
from clarke.errors import OutOfTimeError
from clarke.kinks import default_registry
from clarke.proof.container import refuse
from clarke.proof.sizes import first_run
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.proof.files import Stored


def judge_stored(
    stored: Stored, seconds: float | None, settings: Settings | None = None
) -> Decision:
    """Climb the whole ladder with the program and the gradient of a file.

    Args:
        stored: What the file holds: a kept step, or a proof whose verdict is to be found anew.
        seconds: Time limit; None for no limit.
        settings: Limits of the search.

    Raises:
        ProofError: The program cannot run, or is too large.
    """
    with Deadline.after(seconds) as deadline:
        return judge_within(deadline, stored, settings or Settings())


def judge_within(deadline: Deadline, stored: Stored, settings: Settings) -> Decision:
    """`judge_stored` within the time that a call has left."""
    if stored.is_theorem:
        raise refuse("it holds a theorem, and no step to be judged")
    registry = default_registry()
    try:
        trace = first_run(stored.trace, deadline)
        return decide(
            refilled(trace, registry.keeps, deadline),
            registry,
            stored.variables,
            stored.gradient,
            settings,
            given=not stored.replayed,
            deadline=deadline,
        )
    except OutOfTimeError as error:
        return Decision(Verdict.UNDECIDED, str(error), out_of_time=True)
