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

BESIDE_RATIO = Threshold(
    4.0,
    "Ratio of successive distances at which a program is looked at beside its point. Small enough "
    "that several scales fit between where a function bends and where rounding hides it.",
    NONE,
)
BESIDE_DENSE = Threshold(
    2e-3,
    "Down to this distance scales are twice as dense: quotients that cancel to the second order, "
    "as (1 - cos(x)) / x**2, are rounding below it.",
    NONE,
)
BESIDE_NEAREST = Threshold(
    1e-30,
    "The smallest distance looked at where all coordinates are zero. Guards of 1e-20 and the like "
    "bend the function above it, and its tenth power is still a normal number.",
    (Verdict.NOT_LIPSCHITZ, Verdict.SMOOTH),
)
BESIDE_ULPS = Threshold(
    64.0,
    "Distance, in spacings of a coordinate's numbers, below which a random direction is rounded "
    "to another, and within which kernels count a matrix as singular.",
    NONE,
)
BESIDE_ROUNDINGS = Threshold(
    4.0,
    "Roundings of every intermediate value, each carried to the result by its adjoint, that bound "
    "the error of a value: one for the operation, the rest for what it computes inside.",
    (Verdict.NOT_LIPSCHITZ,),
)
BESIDE_SMALL = Threshold(
    8.0,
    "Differences of values of fewer error bounds than this are not told from rounding. A step has "
    "to be larger, and its size then has a digit.",
    (Verdict.NOT_LIPSCHITZ,),
)
BESIDE_JUMP = Threshold(
    0.95,
    "Where the distance shrinks by BESIDE_RATIO, values that keep this part of their difference "
    "from the point's own do not come back to it: at a power of the distance it is 1/25 or less.",
    (Verdict.NOT_LIPSCHITZ,),
)
BESIDE_FAR = Threshold(
    1e-3,
    "Farther than this the curvature of an ordinary function passes for growing quotients.",
    (Verdict.NOT_LIPSCHITZ,),
)
BESIDE_GROWTH = Threshold(
    0.5,
    "Growth of a difference quotient, per factor of distance, near the point over that far from "
    "it: 1 for a logarithm, more for a root, and 1/4 per scale where there is a derivative.",
    (Verdict.NOT_LIPSCHITZ,),
)
BESIDE_RATE = Threshold(
    1e-2,
    "Relative difference between values along a ray and what a limit of gradients says of them, "
    "that curvature may leave; a step or a detached value differs by as much as the limit.",
    NONE,
)
CONFIRM_STEPS = Steps(
    (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9),
    "Distances at which gradients along a witness are compared with its own; most programs are "
    "confirmed within the first few.",
    POSITIVE,
)
CONFIRM_FINER = Steps(
    (*(10.0**-k for k in range(10, 17)), *(10.0**-k for k in range(18, 46, 2))),
    "Further distances where these do not confirm: ``sqrt(x * x + 1e-16)`` bends within 1e-8 of "
    "0, and guards go down to the smallest normal float32, 1e-38. Only those at which all touched "
    "kinks still see that the point has moved.",
    POSITIVE,
)
CONFIRM_MOVES = Threshold(
    4.0,
    "Spacings by which the input of a touched kink has to move for a step to tell its sides apart.",
    POSITIVE,
)
BESIDE_APART = Threshold(
    1e-4,
    "Relative difference from which AD's gradient is another than the limit of all rays. In "
    "between neither is claimed.",
    (Verdict.NOT_CLARKE,),
)
BESIDE_GRID = Threshold(
    2.0**-12,
    "Grid of directions along a surface on which two computed values stay equal: numbers of few "
    "digits are added and subtracted without rounding.",
    NONE,
)
BESIDE_PARTS = Steps(
    (1e-6, 1e-10),
    "Distances at which values around a point of a guard's surface are compared with its own: the "
    "quotient of a root or a logarithm grows between them, that of a Lipschitz function does not.",
    (Verdict.SMOOTH, Verdict.NOT_CLARKE),
)
BESIDE_ARRIVES = Threshold(
    0.1,
    "From this distance on values along a ray are extrapolated to the point, where nearer ones "
    "are rounding.",
    (Verdict.NOT_LIPSCHITZ,),
)
BESIDE_FLOOR = Threshold(
    1e-9,
    "Least error of a limit of gradients, relative to their size farther out: powers and "
    "logarithms of the distance vanish slowly.",
    (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.NOT_CLARKE),
)
BESIDE_AGREES = Threshold(
    1e-5,
    "Relative difference up to which extrapolated gradients of successive scales agree. What is "
    "left of an analytic function falls by 1/8 to 1/64 a scale, so that the limit is nearer.",
    (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.NOT_CLARKE),
)

# --- the search: enumeration, components, sets ---------------------------------------------------

# --- feasibility: linear rows --------------------------------------------------------------------

# --- operators: rules, pieces, formulas ----------------------------------------------------------

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)
