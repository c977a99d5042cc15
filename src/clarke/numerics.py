"""Every threshold, with where it comes from and the verdicts that it can affect.

`docs/numerics.md` is generated from this module. A number that decides whether two floating point
values count as equal, how far beside a point the program is looked at, or when a solver's answer is
taken, stands here and nowhere else.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
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

SPACINGS = Threshold(
    4.0,
    "Spacings of the type that holds an entry, by which it may differ without a closer look: no "
    "program of several operations rounds less. More differences are looked at one by one.",
    JUDGED,
)
SAMPLES = Threshold(
    3,
    "Replays with random errors before a bound is used. An entry whose error they underestimate "
    "by chance gets more, up to MOST_SAMPLES.",
    JUDGED,
)
MOST_SAMPLES = Threshold(
    16,
    "Replays with random errors after which an entry that still differs by more than its bound "
    "differs by more than rounding. For errors that are normal, as sums of many roundings are, "
    "and ROUNDING_MARGIN, an entry passes that by chance once in 1e14.",
    JUDGED,
)
ROUNDING_MARGIN = Threshold(
    16.0,
    "Multiple of the largest change of an entry that random errors made, up to which rounding "
    "may have moved it. The worst error of a sum of n terms is sqrt(n) times a usual one, and "
    "other orders of summation leave other errors; on networks in float32, bfloat16 and float16 "
    "the largest ratio seen is 5.",
    JUDGED,
)
TOO_WIDE = Threshold(
    0.25,
    "Size of what random errors change in a variable's gradient, as a part of the size of its "
    "terms added up with random signs, from which on agreement within rounding says nothing.",
    POSITIVE,
)
LOSES_TERMS = Threshold(
    2.0**-4,
    "Terms that are added up one by one, in roundings of their type, from which on a good part of "
    "their sum may be lost: 16 in bfloat16, 128 in float16, a million in float32. What rounds less "
    "stays within ROUNDING_MARGIN roundings. Beyond, a gradient is compared with that of its own "
    "pieces in float64.",
    POSITIVE,
)
LOST_TERMS = Threshold(
    0.25,
    "Part of an entry's terms that such a sum may be off by: as TOO_WIDE, which looks at whole "
    "tensors.",
    POSITIVE,
)
DROWNED = Threshold(
    0.25,
    "Multiple of the square root of a rounding: the part of an entry's terms that its error is "
    "when the entry, of which the error is a good part, is noise. In sums that happen to cancel "
    "errors are some roundings of the terms. A quotient ``(f(x) - f(0)) / x`` has no digit right "
    "where x is that root, and there the error is that part of the terms.",
    POSITIVE,
)
SLIGHT = Threshold(
    2.0**-4,
    "Part of the largest terms of a gradient up to which what a narrow type's gradient differs by "
    "from its own pieces' in float64 may be a formula that loses digits, and proves nothing.",
    (Verdict.NOT_CLARKE,),
)
SINGLE_CONSTANTS = Threshold(
    2.0**-24,
    "Relative error of kernels that compute with constants rounded to float32 in every type: "
    "of torch 2.13, hardsigmoid's 1/6.",
    JUDGED,
)
OWN_ROUNDINGS = Threshold(
    16,
    "Spacings of its type by which a derivative that a few operations compute at single elements "
    "may be off: those of a declared Function's backward, or of an operation's pieces.",
    JUDGED,
)
ERROR_SIZES = Steps(
    (2.0**15, 2.0**8, 2.0**2),
    "Errors of a float64 replay, in roundings: so large that float64 shows their effect, which "
    "is then divided by the same number. The next is tried where the larger leads out of a "
    "function's domain.",
    JUDGED,
)
OWN_ERROR_SIZES = Steps(
    (1.0, 2.0**-4, 2.0**-8),
    "The same for the types of a program that are coarser than float64.",
    JUDGED,
)

CONFIRMED = Threshold(
    1e-7,
    "Difference of a gradient beside the point from the limit claimed, relative to the entry, at "
    "which two steps in a row confirm it. The smallest step is 1e-9, so that a slope that changes "
    "by a hundredfold of itself over a unit passes; errors that fall with the step do in any case.",
    POSITIVE,
)
ASKED_ROUNDINGS = Threshold(
    16,
    "Roundings of a vector's type by which each of its entries may be off when it is asked "
    "whether the set contains it.",
    NONE,
)
UNIT = Threshold(
    2.0**-53, "Largest relative error of one rounding in float64, the type of replays.", JUDGED
)
SET_ROUNDINGS = Threshold(
    64,
    "Roundings of float64, of the largest summand of an entry, up to which an entry of a limiting "
    "gradient and one of another may differ and be equal. What cancels on the way to the "
    "summands is measured (ROUNDING_MARGIN).",
    JUDGED,
)

ONE_SAMPLE = Threshold(
    64,
    "Entries of a gradient of which one sample leaves some uncovered by chance: of each it does so "
    "once in twenty times.",
    NONE,
)
SAME_FORMULA = Threshold(
    1.0,
    "Roundings of float32, of an entry's terms, up to which what PyTorch's formulas return in "
    "float64 is the gradient of the recorded pieces: what one constant that was rounded to float32 "
    "leaves, and a sixteenth at most of what samples grant.",
    JUDGED,
)

OF_THE_TERMS = Threshold(
    64.0,
    "Roundings of the program's coarsest type, of an entry's terms, up to which a gradient that "
    "came through a custom Function is that of the recorded operations, without sampling errors: "
    "a sum of some thousand terms leaves as much. What differs by more goes up the ladder.",
    JUDGED,
)

COARSEST_VOUCHED = Threshold(
    2.0**-23,
    "Largest rounding, float32's, at which a gradient that came through a custom Function is "
    "compared so: in bfloat16 64 roundings are a quarter of a value.",
    JUDGED,
)

RANDOM_BITS = Threshold(2.0**-63, "Turns 63 random bits into a number in [0, 1).", NONE)

QUICK_BOUND = Threshold(
    1e-2,
    "Part of a tensor's largest entry up to which rounding may move its entries for a quick "
    "verdict to rest on agreement; beyond, it is asked what the terms amount to.",
    NONE,
)

# --- certificates: what a proof may leave open ---------------------------------------------------

GRANTED = Threshold(
    2.0,
    "A certificate may let an entry be off by so many times what its verification computes for it. "
    "Both are samples of the same errors; the judge may have drawn fewer.",
    JUDGED,
)

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
VERIFIED_CELLS = Threshold(10_000.0, "Cells up to which a verification enumerates again.", NONE)
VERIFIED_KINKS = Threshold(256.0, "Kinks up to which a verification enumerates again.", NONE)
SET_NODES = Threshold(
    1e7,
    "Nodes of the search tree, cells or kinks up to which a set that was asked for is enumerated, "
    "and again when its answers are verified: memory. Time ends it before that.",
    NONE,
)
SET_SMALL = Threshold(
    12, "Kinks up to which a set is listed at once, 4096 combinations of pieces at most.", NONE
)
SET_LISTED = Threshold(
    1e6,
    "Combinations of pieces up to which the elements of a set are returned as one array; more are "
    "streamed, or asked about without listing them.",
    NONE,
)

PROOF_BYTES = Threshold(
    2.0**32, "Bytes up to which a file of a proof is read; a tensor in it is never larger.", NONE
)
PROOF_JSON = Threshold(2.0**26, "Bytes up to which text in a file of a proof is read.", NONE)
PROOF_VALUES = Threshold(
    2.0**27,
    "Elements that one operation of a program read from a file may make, or all its operations "
    "together sixteen times over.",
    NONE,
)

INSTRUCTION_NUMBERS = Threshold(
    2.0**20,
    "Numbers of a program, and of its instructions, up to which a file holds instructions for the "
    "checker without clarke, whose exact arithmetic ends before them.",
    NONE,
)

KEPT_BYTES = Threshold(
    2.0**31, "Bytes of kept steps after which an audit keeps no more of them.", NONE
)

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

VARIES_APART = Threshold(
    1e-4,
    "Relative difference from which tangents along a combination of directions are not the "
    "combination of tangents. A random combination lets a difference that is there pass with "
    "about this probability, so two are tried.",
    JUDGED,
)
NULL_OWN = Threshold(
    1e-11,
    "Tangents of the candidates of one kink that differ by less, relative to the largest of "
    "them, are equal: some thousand roundings of float64. A kink whose candidates have equal "
    "tangents along random directions is null; those that differ by less than rounding are "
    "looked at once more (`really_vary`).",
    JUDGED,
)
NULL_ALL = Threshold(
    1e-13,
    "The same relative to the largest tangent of the operation, for candidates whose own "
    "tangents vanish: some hundred roundings of what they were computed from.",
    JUDGED,
)
NULL_FAINT = Threshold(
    2.0**-30,
    "The same relative to the largest tangent of all touched operations: what cancelled before the "
    "operation leaves roundings of it, which are small beside that only. No kink is null by this "
    "alone: such are looked at entry by entry.",
    JUDGED,
)
JUMP_USUAL = Threshold(
    1e-5,
    "Of the usual size of what a mask picks from: a jump of less than this times NULL_OWN is "
    "rounding. Picked values may all vanish at the point itself.",
    JUDGED,
)
PARTS_ALL = Threshold(
    4.0,
    "Coordinates up to which every part of them is moved alone in search of curvature.",
    (Verdict.NOT_CLARKE, Verdict.CLARKE),
)
PARTS_ALONE = Threshold(
    12.0,
    "Coordinates (of more: variables) of which each is moved alone, and all but each, likewise.",
    (Verdict.NOT_CLARKE, Verdict.CLARKE),
)
TANGENTS_PARALLEL = Threshold(
    1e-8,
    "Relative difference of tangents that counts as proportional: the square root of the "
    "spacing of float64, halfway between rounding and any difference of order one.",
    NONE,
)
ON_SURFACE = Threshold(
    1e-12,
    "A point counts as on a comparison's surface when its switching value is this part of its "
    "gradient's size: Newton's method ends within some roundings of it.",
    JUDGED,
)
SIDES_APART = Threshold(
    1e-7,
    "Distance on either side of a surface at which both branches are evaluated: far above "
    "rounding, and so near that a branch's own slope moves it by less than SIDES_LEFT.",
    JUDGED,
)
SIDES_DROWNED = Threshold(
    1e3,
    "What both sides of a comparison share may hide their difference from this multiple on; the "
    "surface is then looked at once more where only the difference moves.",
    JUDGED,
)
SIDES_LEFT = Threshold(
    1e-5,
    "Relative difference of the values of both branches on their surface from which the "
    "function jumps there.",
    JUDGED,
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
BRANCH_ASIDE = Steps(
    (2.0**-4, 2.0**-10, 2.0**-20),
    "How far aside of a witness, in parts of it, a second direction on its side is looked for: the "
    "witness itself may leave out what a detached value depends on.",
    (Verdict.BOULIGAND,),
)
BRANCH_RAYS = Threshold(
    3.0,
    "Pairs of random rays on which the other side of a Python branch is looked for, beside the one "
    "opposite to the witness.",
    (Verdict.BOULIGAND, Verdict.NOT_LIPSCHITZ),
)
BRANCH_SCALES = Threshold(
    24.0,
    "Distances on each of these rays, each a quarter of the one before: from 1/16 to 1e-15.",
    (Verdict.NOT_LIPSCHITZ,),
)
OTHERWISE_RAYS = Threshold(
    3.0,
    "Pairs of random rays on which a program that reads numbers into Python is recorded again: "
    "enough that a branch on one side of a plane shows with probability 7/8 on both.",
    (Verdict.BOULIGAND, Verdict.CLARKE, Verdict.NOT_CLARKE),
)
OTHERWISE_STEPS = Steps(
    (2.0**-20, 2.0**-24),
    "Distances, in parts of the largest coordinate, at which that is done: the same program at "
    "both. Far above rounding, and within what a branch elsewhere leaves free.",
    (Verdict.BOULIGAND, Verdict.CLARKE, Verdict.NOT_CLARKE),
)
OTHERWISE_PROGRAMS = Threshold(
    3.0,
    "Programs beside a point that are judged: each has a share of the time.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
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
AXIS_STEPS = Steps(
    (1e-2, 1e-4, 1e-6),
    "Distances on a coordinate axis at which the function is steep if it is so all along it.",
    (Verdict.NOT_LIPSCHITZ,),
)
CONFIRM_SLOWLY = Threshold(
    0.5,
    "Part of an error that may be left with a tenfold smaller step, seven times in a row, where "
    "gradients change as a root of the distance does: of ``|x| ** 1.5`` a third is left.",
    POSITIVE,
)
CONFIRM_NEAR = Threshold(
    1e-3,
    "Relative error to which it has come down then, at a distance of 1e-9.",
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
UNSEEN_RAYS = Threshold(
    4, "Points beside the one judged at which both are run: random ones, so few are enough.", NONE
)
UNSEEN_SHARE = Threshold(
    0.5, "Share of these at which they differ; fewer may be a jump that rounding decides.", POSITIVE
)
RAY_LIMIT = Threshold(
    1e-7,
    "Relative error of an entry of a limit along a ray: extrapolated from steps of 1e-5 and 1e-6, "
    "it is off by their product times the third derivative.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
VANISHING_BESIDE = Threshold(
    1e-2,
    "Part of its value at a step of 1e-6 below which what is extrapolated of an entry is zero: "
    "one that falls with the step leaves some 1e-5.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
NOISE_BESIDE = Threshold(
    1e-14,
    "Part of the largest entry below which an extrapolated one is zero: what two roundings of "
    "float64 leave where entries come from the same terms.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)

EIGENVALUES_NEAR = Threshold(
    1e-9,
    "Relative difference of eigenvalues that are taken for one when a direction is sought "
    "along which AD's vectors are the right ones; what is found is confirmed by gradients "
    "along it.",
    NONE,
)
ALIGNED_SOLVED = Threshold(
    1e-8,
    "Residual up to which linear conditions on a direction count as solvable; the direction is "
    "confirmed by gradients along it.",
    NONE,
)
CONFIRM_ALIKE = Threshold(
    1e-6,
    "Words only: a smaller smallest difference is not what was missing, and the message says so.",
    NONE,
)
NAMED_STEP = Threshold(
    1e-6,
    "Distance beside the point at which adjoints are compared to name the operation that "
    "disagrees.",
    NONE,
)
NAMED_PART = Threshold(
    1e-3,
    "Relative difference of adjoints from which an operation is named; at NAMED_STEP curvature "
    "leaves a thousandth of it.",
    NONE,
)
LIMIT_TOLERANCE = Threshold(
    1e-6,
    "Difference, relative to the entry, up to which gradients along a ray have arrived at "
    "their extrapolated limit.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
RAY_INWARD = Threshold(
    2.0**-20,
    "How far, of its own size, a direction on the border of a cell is moved inside of it. The "
    "limits along it are those of the border but for as much.",
    NONE,
)
RAY_BESIDE = Threshold(
    1e-5,
    "Distance from a ray, relative to that from the point, at which gradients must be those on "
    "it for the ray to avoid all kinks.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
RAY_STEP = Threshold(
    1e-4, "Distance from the point at which that is looked at.", (Verdict.BOULIGAND, Verdict.CLARKE)
)
RAY_SMOOTH = Threshold(
    1e-3,
    "Relative change of a gradient over RAY_BESIDE that a curved function may have; across a "
    "kink it changes by a part of itself.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
RATE_APART = Threshold(
    1e-3,
    "Relative difference of a rate of values from that of derivatives from which a verdict is "
    "withdrawn; Simpson's rule between near points leaves far less.",
    NONE,
)
DETACHED_APART = Steps(
    (1e-3, 0.05),
    "Relative differences of the function's rate from that with detached values constant from "
    "which they are apart: the finest that roundings allow.",
    (Verdict.SURROGATE,),
)
SAME_RATE = Threshold(
    1e-9,
    "Relative difference of the gradients in float64 with detached values held constant and not, "
    "up to which they are one: far below any rate that values tell apart.",
    (Verdict.SURROGATE,),
)
RATE_STEPS = Steps(
    (1e-5, 1e-6, 1e-4, 1e-7, 1e-9, 1e-11, 1e-13, 1e-15),
    "Distances at which values are held against derivatives. The nearer ones tell for "
    "functions that bend within them, whose slopes stand out of rounding.",
    NONE,
)
APPLIED_STEPS = Steps(
    tuple(2.0**-k for k in range(4, 26, 3)),
    "Distances, in sizes of its argument, at which a custom Function's forward is run for its rate "
    "of change; of successive ones the two that agree best count, with their difference as error.",
    (Verdict.SURROGATE,),
)
APPLIED_ALIKE = Threshold(
    1e-6,
    "Relative difference of values of a custom Function, in float64, from those of its recorded "
    "operations up to which they are the same, and of its backward from its rate of change. "
    "Forwards that round to a narrower type inside differ by more, and are left undecided.",
    (Verdict.NOT_CLARKE,),
)
APPLIED_APART = Threshold(
    1e-3,
    "Relative difference of a backward from the rate of its forward, in float64, from which it is "
    "named: far more than both lose.",
    (Verdict.SURROGATE,),
)
APPLIED_ASIDE = Threshold(
    2.0**-10,
    "Distance from the point, relative to a variable's size, at which a Function is compared with "
    "its record.",
    (Verdict.NOT_CLARKE,),
)
APPLIED_RANGES = Steps(
    (0.25, 1.0, 4.0, 16.0),
    "Pieces of a ray, in sizes of the arguments, on which a jump of a custom Function is looked "
    "for.",
    (Verdict.SURROGATE,),
)
APPLIED_NEARNESS = Threshold(
    2.0**-36, "Part of such a piece to which it is halved.", (Verdict.SURROGATE,)
)
APPLIED_JUMP = Threshold(
    1e-5,
    "Part of the change over the whole piece that is left over its smallest part if the function "
    "jumps there; of a slope a thousandth of that.",
    (Verdict.SURROGATE,),
)
GRADCHECK_ROWS = Threshold(
    1e-12,
    "Difference, relative to the largest entry of its row, up to which a row of autograd's "
    "Jacobian is that of the selections that were proved: roundings in float64. Others are judged "
    "by themselves.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
COMPILED_LIKE = Threshold(
    64.0,
    "Spacings of the program's coarsest type, of the largest entry, up to which the gradient of a "
    "compiled program counts as that of the function that was compiled: sums are taken in another "
    "order, and products fused. Further away it is judged like one from elsewhere.",
    (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE),
)
COMPILED_ROUNDED = Threshold(
    0.5,
    "Power of the coarsest type's spacing: the part of the largest entry up to which a compiled "
    "program's gradient, if it lies outside of the set and autograd's own does not, may have been "
    "moved there by rounding, and is not called wrong: half of the digits, since terms cancel.",
    (Verdict.NOT_CLARKE,),
)
COMPILED_NEAR = Threshold(
    16.0,
    "Multiples of a rounding by which values are moved to see whether a compiled program, which "
    "sums in another order, may stand on another side of a kink than the function as written.",
    (Verdict.NOT_CLARKE,),
)
COMPILED_SIDES = Threshold(
    8.0,
    "How often they are, and at most how often the variables are rounded otherwise to see what "
    "that does to an entry: a value within one rounding of a kink stays on its side in one of "
    "about two trials.",
    JUDGED,
)
GRADCHECK_BESIDE = Steps(
    (1e-2, 1e-3, 1e-4),
    "Distances from a kink at which torch's test is made, relative to the largest input.",
    NONE,
)
NEAR_PART = Threshold(
    1e-3,
    "Of the distance from the point: points this near to another almost surely see the same "
    "sides of all kinks.",
    NONE,
)
LIMIT_STEPS = Steps(
    (1e-5, 1e-6),
    "Distances at which gradients along a ray are extrapolated to the point.",
    (Verdict.BOULIGAND, Verdict.CLARKE),
)
SURFACE_ROUNDINGS = Threshold(
    100.0, "Roundings of a value beside a guard's surface that are told from a step.", JUDGED
)
RECORD_NOISE = Threshold(
    1000.0,
    "Error bounds by which the recorded value may differ from the function's own: more is "
    "another program.",
    NONE,
)

REFUTED_STEPS = Steps(
    (1e-6, 1e-7, 1e-9, 1e-10, 1e-12, 1e-13, 1e-16, 1e-18, 1e-24, 1e-26),
    "Distances, two at a time, at which gradients beside the point must be on the set's side of a "
    "refuted one; the later pairs are for functions that bend nearer to the point.",
    (Verdict.NOT_CLARKE,),
)

SURFACE_ASIDE = Threshold(
    0.5, "How far, in its own length, a ray that stays on a guard's surface is turned off it.", NONE
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
PRIVATE = Threshold(
    2.0**-50,
    "Relative difference of ratios of random combinations at which a column has one entry: its "
    "ratio is that of two products, three roundings. Two entries have such a ratio by chance with "
    "a probability of 1e-15 for each row.",
    (Verdict.CLARKE, Verdict.NOT_CLARKE),
)
OUTSIDE = Threshold(
    1e-10,
    "A gradient is outside of an outer estimate when it misses it by more than this part of the "
    "absolute terms of the estimate's support function, besides the tolerance for gradients.",
    (Verdict.NOT_CLARKE,),
)

SOLVER_ZERO = Threshold(
    1e-9,
    "Weights of a linear program's solution, relative to the largest, that count as zero when it "
    "is solved to the last digits; what comes of it is held against its proof.",
    NONE,
)
MINIMUM_FLAT = Threshold(
    1e-9,
    "Slopes this small beside the gradient count as none when a local minimum is looked for: "
    "what a linear program leaves open.",
    NONE,
)
CURVATURE_STEP = Threshold(
    1e-3,
    "Of a random step, the distance at which second-order expansions are held against values: "
    "small enough for third derivatives of order one, large enough for curvature beside rounding.",
    NONE,
)
CURVATURE_SAME = Threshold(
    1e-2,
    "Of the second-order terms: an expansion farther from values on either side is not used to "
    "tell minima.",
    NONE,
)
RELATIVE_INSIDE = Threshold(
    1e-6,
    "Weights this far from 0 and 1 at every kink that give zero show that it is inside of a set, "
    "not on its border.",
    NONE,
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

SPACES_RANK = Threshold(
    1e-9,
    "Part of a row that has to be left outside the span of the others for it to be independent "
    "of them. Components must be independent, so that a row that is nearly dependent joins its "
    "component, which costs time only.",
    NONE,
)
SLOPES_EQUAL = Threshold(
    1e-10,
    "Relative difference, entry by entry, of the slopes of tied candidates in float64 that "
    "counts as none: they then are one candidate, and no branch is made.",
    JUDGED,
)
ROWS_ROUNDING = Threshold(
    1e-13,
    "Rows that differ by less, relative to their size, are the same row computed in another order.",
    JUDGED,
)
DEPENDENT_DENOMINATOR = Threshold(
    1000,
    "Ratios of integers up to this are what a row's coefficients in others are made, where they "
    "differ by ROWS_ROUNDING only: a random number is so near to one of them once in 1e7.",
    NONE,
)
EXACT_ROW_BITS = Threshold(
    26,
    "Bits of integers from which rows may be results of rounding. Products of shorter ones are "
    "exact in float64, so that such rows mean what they say.",
    NONE,
)
NORM_RANK = Threshold(
    1e-12,
    "Second singular value, relative to the first, of the slopes of a norm's argument up to which "
    "that moves along one line: some thousand roundings. The norm is then an absolute value.",
    JUDGED,
)
BALL_INSIDE = Threshold(
    64 * 2.0**-53,
    "Of the terms of a row: how far a direction may be outside of a cell and count as on its "
    "border; limits along it are those of directions inside.",
    JUDGED,
)
NORM_SLACK = Threshold(
    1e-9,
    "Of an entry's largest size: what least squares in float64 may leave of the greatest slope of "
    "a norm over a cone of directions.",
    (Verdict.NOT_CLARKE,),
)
MEETING_APART = Threshold(
    1e-9,
    "Of the largest slope: how much two branches of a step differ on the face on which they meet "
    "where that is a jump; what least squares in float64 may leave. A difference between rounding "
    "and this is neither.",
    JUDGED,
)
JUMP_ROUNDINGS = Threshold(
    2.0**-48,
    "Of a value, sixteen units of double precision: branches of a step whose values at the point "
    "differ by no more agree but for rounding.",
    JUDGED,
)
HULL_RANK = Threshold(
    1e-9,
    "Relative singular value of points below which they lie in a subspace, in which Qhull "
    "proposes vertices.",
    NONE,
)
HULL_CLEAR = Threshold(
    1e-9,
    "By how much, relative to the points' width, a direction has to put a point before all "
    "others for it to be a vertex without a linear program.",
    NONE,
)
IDENTITY_ZERO = Threshold(
    1e-13,
    "A switching function is zero on a branch when its values at random points nearby are this "
    "small beside its terms: some hundred roundings.",
    JUDGED,
)
UNITS_NARROW = Threshold(
    1e-8,
    "Of an entry's size in the set: coordinates are not measured in smaller units than this, "
    "where a projection in float64 has no digits left.",
    NONE,
)
VALUES_SAME = Threshold(
    1e-13,
    "Of a value, at a distance of its own order: more than roundings leave, less than any "
    "curvature of order one.",
    JUDGED,
)
IN_COMBINATION = Threshold(
    1e-6,
    "Multipliers, relative to the largest, of rows that a contradiction needs; a hint for "
    "which kink to turn next.",
    NONE,
)
PROJECTION_CLOSE = Threshold(
    1e-12,
    "Part of the largest entry below which the distance of a projection counts as none.",
    NONE,
)
PROJECTION_ROUND = Threshold(
    4 * 2.0**-53,
    "The same of a set with balls in it, where vectors on the border are none of finitely many.",
    NONE,
)
PROJECTION_GAIN = Threshold(
    1e-9,
    "Wolfe's method ends when no element brings the projection nearer by more than this part "
    "of the squared distance.",
    NONE,
)
WITNESS_MARGIN = Threshold(
    1e-9,
    "Margin, relative to row and direction, from which a direction counts as satisfying a row: "
    "float64 has seven digits left there. Rows are checked again in exact arithmetic.",
    NONE,
)
SURE_MARGIN = Threshold(
    256 * 2.0**-53,
    "Of the terms of a row's product with a direction: what rounding of the product cannot have "
    "made. What it can have made of the row itself is measured (ROUNDING_MARGIN).",
    JUDGED,
)
ROW_VANISHING = Threshold(
    1e-12,
    "Rows this small beside the largest of their system have lost their digits and are not "
    "searched with.",
    NONE,
)
POOL_MARGIN = Threshold(1e-9, "As WITNESS_MARGIN, for the rows of tied windows.", NONE)
POOL_NOISE = Threshold(
    1e-4,
    "A hidden layer's recorded values carry roundings of float32: rows must hold with room for "
    "them.",
    (Verdict.BOULIGAND,),
)
CUT_SCATTER = Threshold(
    2.0**-4,
    "How far cut results are moved to see curvature, relative to their size: as the variables "
    "are beside the point.",
    NONE,
)
VERTEX_TOLERANCE = Threshold(
    1e-9,
    "Distance, in widths of the set, at which a point counts as inside of the hull of the others.",
    NONE,
)
DIRECTION_SPREAD = Threshold(
    1e6,
    "A direction with larger differences in size cannot be confirmed by running it in float64.",
    NONE,
)
DIVISOR = Threshold(
    1e-300, "Keeps a quotient of zeros from dividing by zero; nothing is compared with it.", NONE
)
TOWARD_NOISE = Threshold(
    1e-3, "Random part of a direction towards a gradient, so that it leaves no kink open.", NONE
)

# --- feasibility: linear rows --------------------------------------------------------------------

COLUMN_ROUNDING = Threshold(
    1e-12,
    "Entries this small, relative to their column, are roundings when a system's columns are "
    "put together.",
    NONE,
)
COLUMN_LARGEST = Threshold(
    1e120,
    "Coordinates stop growing well before products of entries and coordinates could overflow.",
    NONE,
)
COMBINATION_NEAR_ZERO = Threshold(
    1e-5,
    "Length of a combination of unit rows that may be an exact zero, so that a contradiction "
    "is tried in exact arithmetic.",
    NONE,
)
COMBINATION_ZERO = Threshold(1e-12, "Length at which it cannot be told from one in float64.", NONE)
MARGIN_SAFE = Threshold(
    1e-6, "Margin from which a direction of a part of the rows is not improved.", NONE
)
FLUSHED = Threshold(
    2.0**-1019,
    "What numbers below the smallest normal one, 2^-1022, may lose when they are flushed to "
    "zero, with room for a few: an absolute error in every bound.",
    NONE,
)
GRAM_NOISE = Threshold(1e-14, "Relative eigenvalue of a Gram matrix that is rounding.", NONE)
PIVOT_RANK = Threshold(
    1e-10,
    "Relative size of a diagonal of R that counts as zero when columns for an exact "
    "elimination are chosen; the elimination itself is exact.",
    NONE,
)
MARGIN_COMFORTABLE = Threshold(
    1e-6, "A direction with less margin is kept, but a better one is looked for.", NONE
)
SUPPORTS = Steps(
    (1e-9, 1e-5),
    "Relative sizes below which a multiplier is taken for zero before a contradiction is "
    "sought among the rest exactly.",
    NONE,
)
NEWTON_ENDS = Steps(
    (1e-2, 1e-7),
    "Relative residuals at which Newton's method stops, the first and the last time.",
    NONE,
)
VIOLATED = Threshold(
    1e-6, "Violations, relative to the largest, of rows that an active set starts with.", NONE
)
CGLS_ENDS = Threshold(
    1e-6, "Part of the squared residual at which a least-squares solve stops.", NONE
)
NORM_NONE = Threshold(
    1e-15, "Norm of a projection, relative to the largest entry, that is a few roundings.", NONE
)
HULL_TOLERANCE = Threshold(
    1e-9,
    "Error of a coordinate, relative to the largest entry, up to which a point is in a hull, "
    "where the caller names no bounds.",
    NONE,
)
HIGHS_TOLERANCE = Threshold(
    1e-10, "HiGHS's tolerances, the smallest it takes; what it finds is checked exactly.", NONE
)
WEIGHT_NEGATIVE = Threshold(
    1e-9, "A refined weight may be this much below zero, and is then zero.", NONE
)

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

DECLARED_ASIDE = Threshold(
    1e-3,
    "Relative distance at which a declared Function is compared with its pieces once more.",
    JUDGED,
)
DECLARED_CLEAR = Threshold(
    1e-2,
    "Of that distance, what a switching function must leave between it and zero for the "
    "comparison to count.",
    JUDGED,
)
SLOPE_SINGLE = Threshold(
    1e-7,
    "Slopes of one operation that differ by no more are the same piece's: some float64 kernels "
    "hold constants rounded to float32 (hardsigmoid: 1/6).",
    JUDGED,
)
TANGENTS_EQUAL = Threshold(
    1e-11,
    "Relative difference of the float64 tangents of tied candidates that counts as none.",
    JUDGED,
)
CANCELS = Threshold(
    1e-6,
    "A sum of coefficients this much smaller than its terms counts as rounding: the bias has "
    "then cancelled.",
    (Verdict.BOULIGAND,),
)
PROBABILITY_EXTREME = Threshold(
    2e-12,
    "binary_cross_entropy's derivative divides by max(x (1 - x), 1e-12): where that is the "
    "bound, with room for rounding.",
    NONE,
)
RANK_DEFICIENT = Threshold(
    1e-6, "Ratio of singular values below which a matrix is not trusted to be of full rank.", NONE
)
NORM_AT_LIMIT = Threshold(
    1e-6, "A norm of another order than 2 within this part of renorm's limit counts as at it.", NONE
)
SHIFT_APART = Threshold(
    1e-6,
    "A switching function moves with its input if it moves by 1 within this when the input does.",
    NONE,
)

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)
POST_SECONDS = Threshold(
    10.0,
    "How long one process of a distributed training waits for what another tells of a step, once "
    "in an audit: then that audit asks nobody any more. Processes come out of the averaging of "
    "their gradients together, and each may have spent its step's limit before it tells.",
    NONE,
)
POST_PATIENCE = Threshold(
    600.0,
    "How long the others wait for a joint verdict where the audit has no time limit at all.",
    NONE,
)
POST_PAUSE = Threshold(
    1e-4, "The first pause, in seconds, between two looks whether a message has come.", NONE
)
POST_LONGEST_PAUSE = Threshold(
    0.02, "The longest such pause; each is twice the one before it.", NONE
)
POST_PIECE = Threshold(
    2.0**20, "Bytes of a message under one name: torch's store refuses more than 8 MiB.", NONE
)
POST_BYTES = Threshold(
    2.0**30,
    "Bytes of the programs of all processes together up to which they are sent to be judged; each "
    "may use its part of it. One process holds them all.",
    NONE,
)
AVERAGED = Threshold(
    4.0,
    "Spacings, for each process and two more, by which the checksum of the gradient that all "
    "processes were given may differ from the mean of theirs: a sum of n terms and a division "
    "err by at most n + 1 half spacings of the sum of sizes, and weights are at most 1.",
    POSITIVE,
)

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
ROUNDED_TIE = Threshold(
    2.0**-36,
    "Part of the largest value that an operation reads by which tied candidates part in float64, "
    "from which on their tie is one of rounding alone: far above what float64 itself rounds "
    "(2^-53, over up to 2^16 operations) and far below half precision and float32 (2^-24). A "
    "function's own ties that lie between the two are counted as ties of rounding.",
    POSITIVE,
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
JUDGING_SHARE = Threshold(
    0.4,
    "Share of a program's time spent on judging from which a run proposes to look at fewer steps.",
    NONE,
)
JUDGING_NOTABLE = Threshold(
    2.0,
    "Seconds of judging, of all steps together, below which nothing is proposed.",
    NONE,
)
CURE_SHARE = Threshold(
    0.25,
    "Share of the time left in which rewritings of what made a gradient wrong are tried.",
    NONE,
)
CURE_MOVES = Steps(
    (0.0, 0.25),
    "How far the variables are moved, where a program that is written otherwise is held against "
    "the one that ran: far from where rounding could hide another function.",
    NONE,
)
CURE_SAME = Threshold(
    1e-9,
    "By how much, relatively, the values of the two may differ: both are computed in float64, and "
    "sums of a million terms round less.",
    NONE,
)
ROW_ENTRIES = Threshold(
    10_000_000,
    "Entries of the rows of one kink in the exact enumeration, which are kept as Python's integers "
    "beside float64: some 40 bytes each, 400 MB in all.",
    NONE,
)
LISTED_AT_ONCE = Threshold(
    9,
    "Kinks from which those that do not depend on each other are taken for hyperplanes, whose "
    "chambers are found level by level; fewer are split one by one.",
    NONE,
)
EXACT_ROW_WORK = Threshold(
    20_000_000,
    "Products of integers in the elimination of rows from which they are left to a search in a "
    "random subspace: some 5 s.",
    NONE,
)
ARRAY_ENTRIES = Threshold(
    100_000_000,
    "Entries of a dense float64 array (800 MB) from which it is refused before it is allocated.",
    NONE,
)
EXACT_MEAN = Threshold(
    10_000,
    "Numbers of a set up to which a vector that floating point can put neither inside nor outside "
    "of it is placed in exact arithmetic: some milliseconds a step.",
    NONE,
)
EXACT_MEAN_SIZE = Threshold(
    12, "Variables up to which that is done; a step costs the square of their number.", NONE
)
EXACT_MEAN_STEPS = Threshold(
    400, "Steps of the simplex method after which it gives up: one or two seconds.", NONE
)
BALL_MARGIN = Threshold(
    1e-6,
    "Part of a ball's radius by which a solver's answer, whether a piece meets the ball, has to be "
    "clear; within it, exact arithmetic tells. Solvers are right to 1e-7.",
    NONE,
)
BALL_SHARE = Threshold(
    0.6,
    "Share of the time left in which all linear pieces in a ball are looked for; what is left is "
    "for gradients at random points.",
    NONE,
)
BALL_SAMPLES = Threshold(
    64,
    "Points of a ball at which gradients are taken of programs whose pieces are not linear, or too "
    "many: some milliseconds each.",
    NONE,
)
LONGEST_CHAIN = Threshold(
    4096,
    "Elements in a chain of ties, each greater than the next, up to which a direction is sought by "
    "ordering them; each costs a pass over the ties.",
    NONE,
)

# --- hunts: which points are looked at; every verdict is that of `check` -------------------------

LOOKOUT_WALKS = Threshold(
    16,
    "Calls after which an audit that looks for NaN alone walks through the graph again, although "
    "as many nodes were made as in the call before: a walk costs some 50 us.",
    NONE,
)
HUNT_SECONDS = Threshold(20.0, "Time limit of a hunt: what a person waits for.", NONE)
HUNT_CHECK_SECONDS = Threshold(
    5.0, "Time limit of `check` at one point of a hunt: a quarter of the hunt's own.", NONE
)
HUNT_SHRINK_SHARE = Threshold(
    0.4, "Share of the time left that shrinking one find may take; the search goes on after.", NONE
)
HUNT_SHRINK_CHECKS = Threshold(
    24, "Calls of `check` that shrinking one find may take: some 5 s.", NONE
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
JACOBIAN_LIKE = Threshold(
    1e-9,
    "Difference of an entry of a Jacobian from that of a selection, to its size or to 1, that "
    "counts as rounding; the sum of its rows is held against bounds of each entry besides.",
    JUDGED,
)
JACOBIAN_APART = Threshold(
    1e-6,
    "Difference from every mixture of limiting Jacobians beyond which a Jacobian whose rows are "
    "right is refuted: a thousand times what counts as rounding.",
    JUDGED,
)
JACOBIAN_LISTED = Threshold(
    2000, "Limiting Jacobians that are listed to look for a mixture: some seconds.", NONE
)
BACKWARD_ALIKE = Threshold(
    1e-3,
    "Difference of values, to their size or to 1, up to which a custom Function computes what its "
    "reference does: kernels may round coarsely, other formulas differ by more.",
    NONE,
)


def page() -> str:
    """The Markdown of docs/numerics.md: every threshold by section, as it stands in this file."""
    lines = [
        "# Numbers that decide",
        "",
        "Generated from `src/clarke/numerics.py`: `pytest tests/test_numerics.py` says how.",
        "Comparisons of gradients are entry by entry. *Affects* names the verdicts that another",
        "value could change; where there are none, it costs time, or gives UNDECIDED.",
    ]
    source = Path(__file__).read_text(encoding="utf-8")
    for title, body in re.findall(
        r"^# --- (.*?) -+\n(.*?)(?=^# --- |^def |\Z)", source, re.MULTILINE | re.DOTALL
    ):
        names = [n for n in re.findall(r"^([A-Z_]+) = ", body, re.MULTILINE) if n in globals()]
        if not names:
            continue
        lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
        lines += ["| name | value | why | affects |", "|---|---|---|---|"]
        for name in names:
            value = globals()[name]
            shown = ", ".join(_shown(v) for v in (value if isinstance(value, Steps) else (value,)))
            affects = ", ".join(v.name for v in value.affects) or "none"
            lines.append(f"| `{name}` | {shown} | {value.why} | {affects} |")
    return "\n".join(lines) + "\n"


def _shown(value: float) -> str:
    exponent = math.log2(value) if value > 0 else 0.5
    is_power = exponent.is_integer() and abs(exponent) > 6
    return f"2^{int(exponent)}" if is_power else f"{float(value):g}"
