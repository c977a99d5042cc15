"""Plain words for verdicts: what one means for a training run, and what to do about it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from clarke.report.phrases import several
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.report.runs.model import CulpritRecord


def label(verdict: Verdict | None) -> str:
    """A short name for a column or a legend."""
    match verdict:
        case None:
            return "not looked at"
        case Verdict.SMOOTH:
            return "smooth"
        case Verdict.BOULIGAND:
            return "correct (Bouligand)"
        case Verdict.CLARKE:
            return "correct (Clarke)"
        case Verdict.NOT_CLARKE:
            return "WRONG"
        case Verdict.NONFINITE:
            return "NaN or infinity"
        case Verdict.NOT_LIPSCHITZ:
            return "not Lipschitz"
        case Verdict.SURROGATE:
            return "another slope on purpose"
        case Verdict.UNDECIDED:
            return "undecided"


def meaning(verdict: Verdict | None) -> str:
    """What it means and what to do."""
    match verdict:
        case None:
            return (
                "These backward calls were left out, as the option for looking at every n-th asks. "
                "Nothing is claimed about them."
            )
        case Verdict.SMOOTH:
            return (
                "Either no operation sat on a kink, or the kinks that were touched cannot change "
                "the gradient. Automatic differentiation returned the gradient. Nothing to do."
            )
        case Verdict.BOULIGAND:
            return (
                "The program was at a kink, and the gradient returned is the limit of ordinary "
                "gradients at points beside it. Nothing to do."
            )
        case Verdict.CLARKE:
            return (
                "The program was at a kink, and the gradient returned is an average of limits of "
                "ordinary gradients beside it. Subgradient methods may use it. Nothing to do."
            )
        case Verdict.NOT_CLARKE:
            return (
                "The gradient returned is proved to lie outside of the set of generalized "
                "gradients: the kinks named were resolved in ways that contradict each other. "
                "Rewrite the lines named so that the kinks which should cancel are one operation, "
                "or take a valid gradient from clarke.grad."
            )
        case Verdict.NONFINITE:
            return (
                "The gradient holds NaN or infinity. The operation named made it. Keep its "
                "argument away from the point where its slope is undefined."
            )
        case Verdict.NOT_LIPSCHITZ:
            return (
                "The loss has a step or an infinite slope at this point, so no set of generalized "
                "gradients exists there. Smooth the operation named, or avoid the point."
            )
        case Verdict.SURROGATE:
            return (
                "The program states a derivative of its own, such as a straight-through estimator. "
                "Whether that stands for the derivative is its author's decision."
            )
        case Verdict.UNDECIDED:
            return (
                "Neither a proof nor a refutation was found. The reason is given with each step; "
                "an operation that clarke does not know can be registered."
            )


def alike(culprits: Sequence[CulpritRecord]) -> list[tuple[str, str, str]]:
    """(operation, place, reason) of what a verdict names, alike ones together: "both relus"."""
    found = Counter((c.operation, c.place, c.reason) for c in culprits)
    return [
        (several(operation, n), place, reason if n == 1 else f"{reason}, at each")
        for (operation, place, reason), n in found.items()
    ]
