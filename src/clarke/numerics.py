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
WEIGHTS_CONVEX = Threshold(
    1e-9,
    "By how much the sum of convex weights may differ from 1: as many roundings as there are "
    "weights. The sum itself is checked exactly.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
LIMIT_ERRORS = Threshold(
    1e3,
    "How many times larger the recorded error of a limit along rays may be than that on other rays "
    "at verification. Verification uses its own.",
    JUDGED,
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

FORK_NOISE = Threshold(
    2.0**-50,
    "Relative change of what an operation reads, 4 units of double precision: two sides of a jump "
    "whose values differ by no more than this change makes them differ agree but for rounding. "
    "The difference is then taken off, so that it is no jump; whether the sides agree beside the "
    "point is tested apart from it.",
    JUDGED,
)
FORK_SAME = Threshold(
    1e-9,
    "Relative: two conditions whose numbers have ratios at two random nearby points that differ by "
    "less are one condition. Analytic functions that are no multiples of each other have ratios "
    "that differ by their own order.",
    NONE,
)

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

# --- hunts: which points are looked at; every verdict is that of `check` -------------------------

HUNT_SECONDS = Threshold(20.0, "Time limit of a hunt: what a person waits for.", NONE)
HUNT_CHECK_SECONDS = Threshold(
    5.0, "Time limit of `check` at one point of a hunt: a quarter of the hunt's own.", NONE
)
HUNT_SHRINK_SHARE = Threshold(
    0.4, "Share of the time left that shrinking one find may take; the search goes on after.", NONE
)
HUNT_PATIENCE = Threshold(
    200,
    "Points in a row without a new kink, or pair of kinks, after which a hunt ends: some 1 s.",
    NONE,
)
HUNT_REPEATS = Threshold(
    4,
    "Checks at points that touch the same kinks: a kink can be harmless at one point and not at "
    "the next.",
    NONE,
)
HUNT_NEAR = Threshold(
    16,
    "Nearby points whose gradients, mixed, may give the one at the point: then it is right but for "
    "what `check` would tell, and is not looked at.",
    NONE,
)
HUNT_STEP = Threshold(
    1 / 3,
    "Power of the unit roundoff that says how far away these are: 6e-6 in float64, 5e-3 in "
    "float32, where a difference of gradients is neither rounding nor curvature.",
    NONE,
)
HUNT_LIKE = Threshold(
    1e-3,
    "Difference of two gradients, to their size or to 1, that counts as none before `check`: "
    "curvature over the step; a smaller fault is not looked for.",
    NONE,
)
HUNT_JUMP = Threshold(
    1e-2,
    "Change of the value over such a step, to its size or to 1, that looks like a jump.",
    NONE,
)
HUNT_CLOSE = Threshold(
    1e-6, "Relative distance at which a solution is taken for the round number beside it.", NONE
)
HUNT_NEWTON = Threshold(
    6, "Newton steps towards a kink: two where it is linear, five where it is not.", NONE
)
HUNT_LISTED = Threshold(
    64, "Switching functions, entries and touched kinks of one run that are looked at.", NONE
)
HUNT_LARGE = Threshold(
    1e4,
    "Entries from which a point is an extreme: squares and exponentials overflow in sound programs "
    "too, so that faults are told apart, and the point is not the start of others. The same for "
    "entries below the inverse cube of it.",
    NONE,
)
HUNT_ULPS = Threshold(
    3, "Floating point neighbours of a solution at which a switching function may be zero.", NONE
)
BACKWARD_ALIKE = Threshold(
    1e-3,
    "Difference of values, to their size or to 1, up to which a custom Function computes what its "
    "reference does: kernels may round coarsely, other formulas differ by more.",
    NONE,
)
