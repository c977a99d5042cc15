"""What can be said of a gradient: the vocabulary of the deciding and the reporting layers."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """The eight answers; each member's value is the sentence shown to the user."""

    SMOOTH = "No relevant kink is touched: automatic differentiation returned the gradient."
    BOULIGAND = (
        "Correct: the gradient is a limit of gradients at nearby points, "
        "so it is a Bouligand and a Clarke gradient."
    )
    CLARKE = (
        "Correct: the gradient is a convex combination of limiting gradients, "
        "so it is a Clarke gradient."
    )
    NOT_CLARKE = "WRONG: the gradient is not in the Clarke subdifferential."
    NONFINITE = "The gradient, or the value that was differentiated, is NaN or infinite."
    NOT_LIPSCHITZ = (
        "The function is not Lipschitz here (a step or an infinite slope): "
        "it has no Clarke subdifferential."
    )
    SURROGATE = (
        "The program declares a derivative of its own, "
        "which stands in for the true one and cannot be judged."
    )
    UNDECIDED = "Neither proved correct nor proved wrong."

    @property
    def correct(self) -> bool | None:
        """True for SMOOTH, BOULIGAND and CLARKE, False for NOT_CLARKE, otherwise None."""
        if self in (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE):
            return True
        return False if self is Verdict.NOT_CLARKE else None

    @property
    def so_far(self) -> str:
        """Begins a sentence that goes on with why it is not said: ", but ..."."""
        word = "wrong" if self is Verdict.NOT_CLARKE else "right"
        return f"By the operations that ran the gradient is {word} ({self.name})"
