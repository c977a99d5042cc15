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

ROWS_POSITIVE = Threshold(
    2.0**-40,
    "A row times a direction counts as positive in a verification if it exceeds this part of the "
    "sum of the terms' sizes: the row itself comes from a float64 backward pass, whose thousands "
    "of roundings (2^-53 each) stay below. Directions are searched with a margin of 1e-9.",
    POSITIVE,
)
ROWS_AGREE = Threshold(
    1e-6,
    "Relative difference of a row along a direction as recorded and as recomputed. A row that just "
    "passes with a margin of 1e-9 has lost 9 of its 16 digits, and the order of summation may "
    "change the last of what is left.",
    POSITIVE,
)
ROWS_ONE_BY_ONE = Threshold(
    512, "Rows up to which a verification takes each by a backward pass of its own.", NONE
)
ROWS_EXACT = Threshold(
    16_000_000,
    "Entries up to which rows are checked in exact arithmetic; beyond, one forward pass computes "
    "all rows along the direction, which must exceed what rounding may be.",
    NONE,
)
SAME_GRADIENT = Threshold(
    1e-9,
    "Relative difference, entry by entry, of one gradient that is computed twice in float64 by the "
    "same replay: none but where threads share a sum.",
    JUDGED,
)

LAYER_SCALES = Steps(
    (2.0**-8, 2.0**-14, 2.0**-20, 2.0**-26),
    "How much smaller the direction of one layer is than that of the next when a quick verdict's "
    "directions are put together; any that satisfies all rows will do.",
    NONE,
)
SET_AGREES = Threshold(
    1e-7,
    "Relative difference of a gap or a distance to a set, as recorded and as recomputed: Wolfe's "
    "method stops at 1e-9. Also the part of the largest entry by which a refuted gradient must be "
    "apart from the set.",
    (Verdict.NOT_CLARKE,),
)
VERIFIED_NODES = Threshold(
    200_000.0, "Nodes of the search tree up to which a verification enumerates again.", NONE
)
VERIFIED_CELLS = Threshold(10_000.0, "The same for cells.", NONE)
VERIFIED_KINKS = Threshold(256.0, "The same for kinks.", NONE)

# --- masks and comparisons -----------------------------------------------------------------------

# --- beside the point: rays, steps, values that are not finite -----------------------------------

# --- the search: enumeration, components, sets ---------------------------------------------------

# --- feasibility: linear rows --------------------------------------------------------------------

# --- operators: rules, pieces, formulas ----------------------------------------------------------

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)
