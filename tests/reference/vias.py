"""The ways in which PyTorch can be asked to compute one and the same kinked function.

They never change the function, only what automatic differentiation answers on the kink.
"""

from __future__ import annotations

from enum import Enum, auto


class ReluVia(Enum):
    """Ways to write max(x, 0)."""

    RELU = auto()
    CLAMP_MIN = auto()
    THRESHOLD = auto()
    LEAKY_ZERO = auto()  # leaky_relu(x, 0)
    MAXIMUM = auto()  # maximum(x, 0)
    AMAX = auto()  # stack([x, 0]).amax(0)
    FIRST = auto()  # stack([x, 0]).max(0): x on a tie
    LAST = auto()  # stack([0, x]).max(0): 0 on a tie
    WHERE_GE = auto()
    WHERE_GT = auto()
    MASK_GE = auto()  # x * (x >= 0): always 1 at 0
    MASK_GT = auto()
    HALF_ABS = auto()  # (x + |x|) / 2
    MINUS_CLAMP_MAX = auto()  # x - clamp(x, max=0)


class AbsVia(Enum):
    """Ways to write |x|."""

    ABS = auto()
    MAXIMUM = auto()  # maximum(x, -x)
    RELU_PAIR = auto()  # relu(x) + relu(-x)
    SIGN = auto()  # x * sign(x)
    WHERE_GE = auto()


class ClampVia(Enum):
    """Ways to write min(max(x, lo), hi)."""

    CLAMP = auto()
    HARDTANH = auto()  # two-sided only
    MIN_MAX = auto()  # minimum(maximum(x, lo), hi)


class LeakyVia(Enum):
    """Ways to write x if x > 0 else slope * x."""

    LEAKY_RELU = auto()
    PRELU = auto()
    WHERE_GE = auto()


class OwnVia(Enum):
    """Functions with one spelling each."""

    RELU6 = auto()
    HARDSIGMOID = auto()
    SOFTSHRINK = auto()


class ExtremumVia(Enum):
    """Ways to write the maximum (or minimum) of a list."""

    PAIRWISE = auto()  # maximum(maximum(a, b), c): halves
    AMAX = auto()  # amax / amin: equal shares
    FULL = auto()  # stack(...).max(): equal shares
    FIRST = auto()  # stack(...).max(dim=0).values: first index
    TOPK = auto()
    SORT = auto()
    POOL = auto()  # max_pool1d
    RELU_CHAIN = auto()  # a + relu(b - a)


PointwiseVia = ReluVia | AbsVia | ClampVia | LeakyVia | OwnVia
