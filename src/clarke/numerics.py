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

# --- certificates: what a proof may leave open ---------------------------------------------------

# --- masks and comparisons -----------------------------------------------------------------------

# --- beside the point: rays, steps, values that are not finite -----------------------------------

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

# --- the search: enumeration, components, sets ---------------------------------------------------

# --- feasibility: linear rows --------------------------------------------------------------------

# --- operators: rules, pieces, formulas ----------------------------------------------------------

# --- time ----------------------------------------------------------------------------------------

CHECK_SECONDS = Threshold(10.0, "Default time limit of one `clarke.check`.", NONE)
STEP_SECONDS = Threshold(1.0, "Default time limit of one judged step of an audit.", NONE)
SET_SECONDS = Threshold(60.0, "Default time limit of one `clarke.subdifferential`.", NONE)


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
