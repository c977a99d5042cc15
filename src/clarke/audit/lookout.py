"""Look for NaN and infinity alone: nothing is recorded before the first gradient that is not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.policy import OnWrong
from clarke.capture.aside import Rest
from clarke.decide import Decision
from clarke.errors import InputError
from clarke.fast import all_finite
from clarke.prepare import reached_leaves
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.audit.engine import BackwardCall
    from clarke.capture import Recorder
    from clarke.report import Report

NOT_FINITE_ONLY = "Its gradient is finite; nothing else was looked at."
_WHERE = (
    "Nothing was recorded up to here, so that the operation is not known. The next backward call "
    "is judged; {again}"
)
_AGAIN = "to see where it arose in this one, run it again with every={} instead."
_FIRST = "to see where it arose in this one, run it again without."


class Lookout:
    """Keeps the recorder at rest for as long as gradients are finite, then for one call not.

    Args:
        on_nonfinite: What the audit was asked for.

    Attributes:
        rests: Nothing is recorded for the next call.

    Raises:
        InputError: What cannot be done without a record.
    """

    def __init__(self, on_nonfinite: OnWrong | str | Callable[[Report], None] | None) -> None:
        if on_nonfinite is None or on_nonfinite in ("repair", OnWrong.REPAIR):
            given = getattr(on_nonfinite, "name", on_nonfinite)
            raise InputError(
                f"on_nonfinite is {given!r}, and only_nonfinite=True looks for nothing else without "
                'recording it. Use on_nonfinite="warn", "raise" or a function, or judge every call.'
            )
        self._rest: Rest | None = None
        self.rests = True

    def begin(self, recorder: Recorder) -> None:
        """Rest from here on."""
        self._rest = Rest(recorder)
        self.judged()

    def judged(self) -> None:
        """A call was recorded and judged: rest again."""
        self.rests = True
        if self._rest is not None:
            self._rest.start()

    def look(
        self, call: BackwardCall, result: Any, number: int
    ) -> tuple[Decision, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]] | None:
        """A decision, gradients and leaves where a call's gradient is not finite; None where it is.

        Args:
            call: One that was made.
            result: What the engine returned.
            number: Of the call.
        """
        leaves = call.inputs or _leaves(call.roots)
        given = [x.grad for x in leaves] if call.accumulates else result
        found = [(x, g) for x, g in zip(leaves, given, strict=True) if g is not None]
        if all_finite([g for _, g in found]):
            return None
        self.rests = False
        if self._rest is not None:
            self._rest.stop()
        bad = [(x, g) for x, g in found if not all_finite([g])]
        before = "" if all_finite([x for x, _ in found]) else " A variable itself is not finite."
        valued = all_finite(call.roots)
        value = "" if valued else " Nor is what was differentiated."
        again = _AGAIN.format(number - 1) if number > 1 else _FIRST
        reason = (
            f"{len(bad)} of {len(found)} tensors have a gradient with NaN or infinity."
            f"{value}{before} {_WHERE.format(again=again)}"
        )
        decision = Decision(Verdict.NONFINITE, reason)
        return decision, tuple(g for _, g in found), tuple(x for x, _ in found)


def _leaves(roots: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    found = {id(x): x for root in roots for x in reached_leaves(root)}
    return list(found.values())
