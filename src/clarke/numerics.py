"""Every threshold, with where it comes from and the verdicts that it can affect.

`docs/numerics.md` is generated from this module. A number that decides whether two floating point
values count as equal, how far beside a point the program is looked at, or when a solver's answer is
taken, stands here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.verdict import Verdict

if TYPE_CHECKING:
    from typing_extensions import Self

POSITIVE = (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)
JUDGED = (*POSITIVE, Verdict.NOT_CLARKE)
NONE: tuple[Verdict, ...] = ()  # the effort only: a wrong choice gives UNDECIDED, or costs time


class Threshold(float):
    """A number with its derivation.

    Attributes:
        why: Where the number comes from, and what happens on either side of it.
        affects: The verdicts that another value could change, apart from UNDECIDED.
    """

    why: str
    affects: tuple[Verdict, ...]

    def __new__(cls, value: float, why: str, affects: tuple[Verdict, ...]) -> Self:
        """A float that remembers its reason."""
        self = super().__new__(cls, value)
        self.why = why
        self.affects = affects
        return self


class Steps(tuple[float, ...]):  # noqa: SLOT001 - a tuple cannot have slots
    """A sequence of step sizes with its derivation; attributes as of `Threshold`."""

    why: str
    affects: tuple[Verdict, ...]

    def __new__(cls, values: tuple[float, ...], why: str, affects: tuple[Verdict, ...]) -> Self:
        """A tuple that remembers its reason."""
        self = super().__new__(cls, values)
        self.why = why
        self.affects = affects
        return self


# --- comparing gradients: what rounding alone can do to an entry --------------------------------

# --- certificates: what a proof may leave open ---------------------------------------------------

# --- masks and comparisons -----------------------------------------------------------------------

# --- beside the point: rays, steps, values that are not finite -----------------------------------

# --- the search: enumeration, components, sets ---------------------------------------------------

SAME_FORM = Threshold(
    1e-9,
    "Two linear forms whose values along random directions agree to this relative precision are "
    "candidates for being multiples of each other; derivatives are computed in float64, with "
    "relative errors of some 1e-13. What is proposed is checked entry by entry before it is used.",
    NONE,
)
KEY = Threshold(
    1e-7,
    "Raster by which linear forms are sorted to find multiples of each other: coarser than "
    "`SAME_FORM`, so that few equal ones fall on two sides of a line; these stay apart, which "
    "costs a verdict only.",
    NONE,
)
ZERO_FORM = Threshold(
    1e-11,
    "An entry of a sum of derivatives counts as zero up to this part of the sum of its absolute "
    "terms: a thousand times the roundings of such a sum, and far below any coefficient that a "
    "program would hold on purpose beside others in the same entry.",
    JUDGED,
)
CURVED = Threshold(
    1e-12,
    "Two switching functions are multiples of each other if their values at random points nearby, "
    "whose distance is of the order of the point, agree to this relative precision; a curvature "
    "would show in the first digits.",
    JUDGED,
)
OUTSIDE = Threshold(
    1e-10,
    "A gradient is outside of an outer estimate when it misses it by more than this part of the "
    "absolute terms of the estimate's support function, besides the tolerance for gradients.",
    (Verdict.NOT_CLARKE,),
)

FOLLOWS = Threshold(
    1e-3,
    "Relative difference of slopes beside the point from those of the first order at it, at one of "
    "`BESIDE_STEPS`: curvature of order one leaves 1e-6.",
    (Verdict.CLARKE, Verdict.NOT_CLARKE),
)
BESIDE_STEPS = Steps(
    (1e-6, 1e-7),
    "Distances at which gradients beside the point are compared with a set: far above the spacing "
    "of float64, far below the scale of the point.",
    (Verdict.CLARKE, Verdict.NOT_CLARKE),
)

# --- feasibility: linear rows --------------------------------------------------------------------

# --- operators: rules, pieces, formulas ----------------------------------------------------------

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)
