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

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)

SLOW_OPERATION = Threshold(
    0.02,
    "Seconds of an operation in a replay from which its backward pass asks the deadline too: a "
    "fiftieth of an audited step's limit; a hook on every operation would cost more than it saves.",
    NONE,
)
EXACT_ENTRY_SECONDS = Threshold(
    1e-6,
    "What one entry costs at least in exact arithmetic (a product and a sum of Python's integers, "
    "measured 2 to 4 microseconds): to refuse what could not end in time before it is begun.",
    NONE,
)
FLOPS = Threshold(
    2e9,
    "Operations per second of a dense factorisation on one core, a low estimate: to refuse, or to "
    "bound the iterations of, what cannot be interrupted.",
    NONE,
)
SEARCH_SHARE = Threshold(
    0.5,
    "Share of the time left that one search for witnesses may take: where it finds none, the exact "
    "enumeration that follows still gets as much.",
    NONE,
)
EXACT_SHARE = Threshold(
    0.8,
    "Share of the time left that the exact enumeration may take; what it leaves is for checking "
    "what it found, or for the neighbours of AD's selection where it finds nothing.",
    NONE,
)
ROW_ENTRIES = Threshold(
    10_000_000,
    "Entries of the rows of one kink in the exact enumeration, which are kept as Python's integers "
    "beside float64: some 40 bytes each, 400 MB in all.",
    NONE,
)
ARRAY_ENTRIES = Threshold(
    100_000_000,
    "Entries of a dense float64 array (800 MB) from which it is refused before it is allocated.",
    NONE,
)
LONGEST_CHAIN = Threshold(
    4096,
    "Elements in a chain of ties, each greater than the next, up to which a direction is sought by "
    "ordering them; each costs a pass over the ties.",
    NONE,
)
