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

UNSEEN_ROUNDINGS = Threshold(
    32.0,
    "A program's value may differ from its replay's by so many units of roundoff of its coarsest "
    "type, relative to the largest Euclidean norm of a tensor on the way: more than pairwise sums "
    "and fused kernels lose. Beyond, beside the point, the record is not the program.",
    POSITIVE,
)
UNSEEN_STEP = Threshold(
    4.0,
    "Distance of these points, relative to the largest entry, in fourth roots of the spacing of "
    "the coarsest type: a first-order difference is then far above rounding.",
    NONE,
)
UNSEEN_RAYS = 4  # points beside the one judged at which both are run
UNSEEN_SHARE = Threshold(
    0.5, "Share of these at which they differ; fewer may be a jump that rounding decides.", POSITIVE
)

# --- the search: enumeration, components, sets ---------------------------------------------------

# --- feasibility: linear rows --------------------------------------------------------------------

# --- operators: rules, pieces, formulas ----------------------------------------------------------

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)
