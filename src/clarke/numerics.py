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

# --- feasibility: linear rows --------------------------------------------------------------------

# --- operators: rules, pieces, formulas ----------------------------------------------------------

QUOTIENT_RADII = Steps(
    (1e-3, 1e-5),
    "How far beside the point, for coordinates of size 1, values are asked at what rate the "
    "function changes. Curvature moves a rate by as much; the two must tell the same.",
    (Verdict.NOT_CLARKE,),
)
QUOTIENT_STEPS = Steps(
    (1e-2, 5e-3),
    "Steps of a central difference as parts of its distance from the point: small enough to stay "
    "on one piece, but for a share of all directions that would show as a disagreement of the two.",
    (Verdict.NOT_CLARKE,),
)
QUOTIENT_SHARE = Threshold(
    0.1,
    "Of the gap that a refutation claims: as much may the error of a difference quotient be, and "
    "the difference of two with different steps. Above, values are too coarse to tell.",
    (Verdict.NOT_CLARKE,),
)
QUOTIENT_ROUNDINGS = Threshold(
    16.0,
    "Roundings of the program's largest value that a value of the result may be off by, so that "
    "a central difference with step h is off by as many over h.",
    (Verdict.NOT_CLARKE,),
)

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)
