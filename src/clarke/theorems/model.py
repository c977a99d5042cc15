"""The vocabulary of static facts: theorems, their hypotheses, how a bias reaches a layer."""

from __future__ import annotations

from enum import Enum


class Theorem(Enum):
    """The statements that `explain` decides; each value is the name shown to the user."""

    ANALYTIC = "no kinks"
    ONE = "Theorem 1"
    FOUR = "Theorem 4"
    SIX = "Theorem 6"
    BIAS_SHIFT = "bias shift (beyond the paper)"
    FIVE = "Theorem 5"
    EIGHT = "Theorem 8"

    @property
    def unconditional(self) -> bool:
        """Whether it needs no look at the values of a particular step."""
        return self not in (Theorem.FIVE, Theorem.EIGHT)


class Strength(Enum):
    """What the gradient is proved to be."""

    GRADIENT = "the gradient itself"
    BOULIGAND = "an element of the Bouligand subdifferential"
    CLARKE = "an element of the Clarke subdifferential"


class Condition(Enum):
    """Hypotheses, in the order of the table; each value is what the user reads."""

    ANALYTIC = "every other operation is analytic"
    FIXED = "the same operations run for all values"
    BIASES = "every layer with kinks has its own bias"
    DISTINCT = "distinct biases: one per neuron"
    SINGLE = "one bias per pre-activation (batch 1)"
    POOLS = "no maximum over a set (trivial maxpools)"
    LAMBDA = "one lambda per layer at all its kinks"
    OWN = "no parameter is used again after a kink"
    FULL = "fully connected, with its own weights"


class Bias(Enum):
    """How bias variables reach the pre-activations of one operation with kinks."""

    SINGLE = "one for each pre-activation"
    DISTINCT = "distinct: one per neuron, shared by the samples of the batch"
    SHARED = "shared by several pre-activations"
    MISSING = "missing"
    ELSEWHERE = "used elsewhere too"
    FROZEN = "frozen: not among the variables"
    CANCELLED = "cancelled by a later normalisation"
    ZERO = "scaled by zero"
    BEHIND = "behind another operation"

    @property
    def usable(self) -> bool:
        """Whether shifting it moves the layer's pre-activations and nothing before them."""
        return self in (Bias.SINGLE, Bias.DISTINCT, Bias.SHARED)
