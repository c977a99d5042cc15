"""Random guarded functions of one variable, and what they are by arithmetic of 300 digits.

A guarded function takes a branch that is not defined at 0 (a quotient, a logarithm, a root) and puts
another value in its place at 0, or near it. What the function is beside the point is known here from
mpmath alone: from both sides the limits of its value and of its slope.
"""

import math
import random
from dataclasses import dataclass

import mpmath
import torch

DIGITS = 300
NEAR = 60  # the limits are looked at from a distance of 10 ** -NEAR
ROUNDING = 1e-15  # of values around 1: a step that is smaller is none for a program in floats

# name: the branch in torch, the same in mpmath, the value that belongs in its place at 0.
BRANCHES = {
    "sin(s)/s": (lambda s: torch.sin(s) / s, lambda s: mpmath.sin(s) / s, 1),
    "expm1(s)/s": (lambda s: torch.expm1(s) / s, lambda s: mpmath.expm1(s) / s, 1),
    "(exp(s)-1)/s": (lambda s: (s.exp() - 1) / s, lambda s: mpmath.expm1(s) / s, 1),
    "log1p(s)/s": (lambda s: torch.log1p(s) / s, lambda s: mpmath.log1p(s) / s, 1),
    "s/expm1(s)": (lambda s: s / torch.expm1(s), lambda s: s / mpmath.expm1(s), 1),
    "s/log1p(s)": (lambda s: s / torch.log1p(s), lambda s: s / mpmath.log1p(s), 1),
    "tan(s)/s": (lambda s: torch.tan(s) / s, lambda s: mpmath.tan(s) / s, 1),
    "tanh(s)/s": (lambda s: torch.tanh(s) / s, lambda s: mpmath.tanh(s) / s, 1),
    "atan(s)/s": (lambda s: torch.atan(s) / s, lambda s: mpmath.atan(s) / s, 1),
    "sinh(s)/s": (lambda s: torch.sinh(s) / s, lambda s: mpmath.sinh(s) / s, 1),
    "(1-cos(s))/s": (lambda s: (1 - s.cos()) / s, lambda s: (1 - mpmath.cos(s)) / s, 0),
    "(1-cos(s))/s^2": (lambda s: (1 - s.cos()) / s**2, lambda s: (1 - mpmath.cos(s)) / s**2, 0.5),
    "sigmoid-half/s": (
        lambda s: (torch.sigmoid(s) - 0.5) / s,
        lambda s: (1 / (1 + mpmath.exp(-s)) - mpmath.mpf(1) / 2) / s,
        0.25,
    ),
    "(sqrt(1+s)-1)/s": (
        lambda s: ((1 + s).sqrt() - 1) / s,
        lambda s: (mpmath.sqrt(1 + s) - 1) / s,
        0.5,
    ),
    "s*log|s|": (lambda s: s * s.abs().log(), lambda s: s * mpmath.log(abs(s)), 0),
    "s^2*log|s|": (lambda s: s**2 * s.abs().log(), lambda s: s**2 * mpmath.log(abs(s)), 0),
    "sqrt|s|": (lambda s: s.abs().sqrt(), lambda s: mpmath.sqrt(abs(s)), 0),
    "|s|^1.5": (lambda s: s.abs() ** 1.5, lambda s: abs(s) ** mpmath.mpf("1.5"), 0),
    "exp(-1/s^2)": (lambda s: torch.exp(-1 / s**2), lambda s: mpmath.exp(-1 / s**2), 0),
    "atan(1/s)": (lambda s: torch.atan(1 / s), lambda s: mpmath.atan(1 / s), 0),
    "s*atan(1/s)": (lambda s: s * torch.atan(1 / s), lambda s: s * mpmath.atan(1 / s), 0),
    "log|s|": (lambda s: s.abs().log(), lambda s: mpmath.log(abs(s)), 0),
    "1/s": (lambda s: 1 / s, lambda s: 1 / s, 0),
}
GUARDS = ("==", "|x|<", "|x|<=", ">")
EPSILONS = (1e-3, 1e-4, 1e-6, 1e-8, 1e-12)


@dataclass(frozen=True)
class Guarded:
    """``scale * where(guard, value + slope * x, branch(safe x)) + linear * x``, and a point.

    Attributes:
        branch: A name in `BRANCHES`.
        guard: The comparison, under which the branch is replaced (for ">": where it fails).
        epsilon: The guard's number.
        double: The branch sees a safe value where the guard holds; else NaN may arise there.
        slope: Of what replaces the branch.
        off: What the value there is wrong by.
        scale: Factor of all of it.
        linear: A linear term beside it.
        at: The point.
    """

    branch: str
    guard: str
    epsilon: float
    double: bool
    slope: float
    off: float
    scale: float
    linear: float
    at: float

    def guarded(self, x, zero):
        """Where the branch is replaced; `zero` is 0 in the arithmetic of `x`."""
        return {
            "==": lambda: x == zero,
            "|x|<": lambda: abs(x) < self.epsilon,
            "|x|<=": lambda: abs(x) <= self.epsilon,
            ">": lambda: x <= zero,
        }[self.guard]()

    def __call__(self, x):
        """The program in torch, for a tensor of any shape."""
        value = BRANCHES[self.branch][2] + self.off
        taken = x > 0 if self.guard == ">" else ~self.guarded(x, 0)
        inner = torch.where(taken, x, torch.ones_like(x)) if self.double else x
        out = torch.where(taken, BRANCHES[self.branch][0](inner), value + self.slope * x)
        return (self.scale * out + self.linear * x).sum()

    def exact(self, x):
        """The value at a number of mpmath."""
        with mpmath.workdps(DIGITS):
            if self.guarded(x, mpmath.mpf(0)):
                out = mpmath.mpf(BRANCHES[self.branch][2] + self.off) + self.slope * x
            else:
                out = BRANCHES[self.branch][1](x)
            return self.scale * out + self.linear * x


@dataclass(frozen=True)
class Truth:
    """What a function of one variable is at a point.

    Attributes:
        jump: The largest distance of one-sided limits of the value from the point's own.
        seen: Whether it is larger than rounding.
        slopes: The limits of the slope from the left and from the right; None where unbounded.
    """

    jump: float
    seen: bool
    slopes: tuple[float, float] | None


def truth(program: Guarded) -> Truth:
    """The limits of value and slope from both sides."""
    with mpmath.workdps(DIGITS):
        at = mpmath.mpf(program.at)
        here = program.exact(at)
        jumps, slopes = [], []
        for sign in (-1, 1):
            values, found = [], []
            for k in (NEAR, NEAR + 6):
                h = mpmath.mpf(10) ** -k
                x, apart = at + sign * h, h / 10**20
                values.append(program.exact(x))
                found.append((program.exact(x + apart) - program.exact(x - apart)) / (2 * apart))
            jumps.append(abs(values[1] - here))
            settled = abs(found[1] - found[0]) <= mpmath.mpf(10) ** -6 * (1 + abs(found[0]))
            slopes.append(float(found[1]) if settled else math.inf)
        jump = float(max(jumps))
        bounded = all(map(math.isfinite, slopes))
        seen = jump > ROUNDING * (abs(program.scale) + abs(float(here)))
        return Truth(jump, seen, (min(slopes), max(slopes)) if bounded else None)


def random_guarded(rng: random.Random) -> Guarded:
    """A guarded function and a point at its guard, inside, on its border, or far from it."""
    guard = rng.choice(GUARDS)
    epsilon = rng.choice(EPSILONS)
    at = 0.0
    if guard.startswith("|x|"):
        at = rng.choice([0.0, epsilon, -epsilon, epsilon / 2])
    elif rng.random() < 0.1:
        at = rng.choice([0.5, -0.25])
    return Guarded(
        branch=rng.choice(sorted(BRANCHES)),
        guard=guard,
        epsilon=epsilon,
        double=rng.random() < 0.7,
        slope=rng.choice([0.0, 0.0, 0.5, -1.0]),
        off=rng.choice([0.0, 0.0, 0.0, 0.0, 1.0, 1e-6]),
        scale=rng.choice([1.0, 1.0, -2.0, 1e3, 1e-3]),
        linear=rng.choice([0.0, 0.0, 1.0, -3.0]),
        at=at,
    )
