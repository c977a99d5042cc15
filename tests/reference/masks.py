"""Random programs of masks at points on their kinks, judged by sampled gradients nearby.

Every program is piecewise affine, so near the point it is determined by its values and gradients in
finitely many cones: gradients at many random tiny offsets are limiting gradients exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog

STEP = 2.0**-24
_SECOND = 2.0**-10
_BISECTIONS = 30
_APART = 1e-3  # of a step: how far values on both sides of a boundary may part

VECTORS = (
    "torch.where({a} < 0, {a}, 0)",
    "torch.where({a} >= 0, {a}, 0 * {a})",
    "torch.where({a} > {b}, {a}, {b})",
    "torch.where({a} <= 0, {k} * {a}, {a})",
    "{a} * ({a} > 0)",
    "{a} * ({a} >= 0).to({a}.dtype)",
    "{a} * {a}.gt(0).float().mul({k})",
    "{a}.masked_fill({a} < 0, 0.0)",
    "{a}.masked_fill(~({a} > 0), 0.0)",
    "{a}.sign() * {a}",
    "{a} * torch.where({a} > 0, 1.0, {k})",
    "F.relu({a})",
    "{a}.abs()",
    "torch.maximum({a}, {b})",
    "torch.where(({a} > 0) & ({b} > 0), torch.minimum({a}, {b}), 0)",
    "torch.where(({a} > 0) | ({b} > 0), torch.maximum({a}, {b}), 0)",
    "torch.where(({a} > 0) ^ ({b} > 0), -torch.minimum({a}.abs(), {b}.abs()), "
    "torch.minimum({a}.abs(), {b}.abs()))",
    "torch.where({a} == 0, {a}, {k} * {a})",
    "torch.where({a} != {b}, {a}, {b})",
    "{m} * {a}",
    "{a} + {b}",
    "{a} - {b}",
    "-{a}",
    "{a}.flip(0)",
    "{a}[{p}]",
    "{a}.sort().values",
    "filled({a})",
    "{a} * {m}.bool()",
    "torch.where({m} > 0, {a}, {b})",
    "{m} * {s}",
    "{a} + {s}",
    "torch.stack([{a}, {b}]).amax(0)",
)
INDEXED = (
    "{a}[{a}.argsort()]",
    "{a}[{a}.topk(2).indices].sum() * {m}",
    "{a}[{a}.argmax()] * {m}",
    "{a}.gather(0, {a}.argsort(descending=True))",
    "(F.one_hot({a}.argmax(), {n}) * {a}).sum() * {m}",
    "torch.take_along_dim({a}, {a}.argmin(0, keepdim=True), 0) * {m}",
    "{b}[{a}.argsort()] * 0 + {a}",
)
COUNTED = (
    "{a}.max() * ({a} > 0).any() * {m}",
    "{a}.min() * ({a} > 0).all() + {m}",
    "{a}[{a} > 0].sum() * {m}",
    "{a}.masked_select({a} >= 0).sum() - {a}",
    "{a}[({a} > 0).nonzero()[:, 0]].sum() * {m}",
    "F.relu({a}).sum() * (({a} > 0).sum() > 0) * {m}",
)
JUMPS = (
    "{a} * ({b} > 0)",
    "({a} > 0).to({a}.dtype)",
    "torch.where({a} > 0, {a}, {b})",
    "{a}.sign()",
)
STEPS = (
    "({a} - {a}.round()).abs()",
    "torch.minimum({a} % 1, 1 - {a} % 1)",
    "(2 * ({a} / 2 - ({a} / 2 + 0.5).floor())).abs()",
    "({a} - {a}.floor()) * ({a}.ceil() - {a}) * 0 + {a}",
    "torch.minimum({a} - {a}.floor(), {a}.floor() + 1 - {a})",
    "torch.where({a}.floor() % 2 == 0, {a} - {a}.floor(), {a}.floor() + 1 - {a})",
)
SCALARS = (
    "({m} * {a}).sum()",
    "{a}.sum()",
    "{a}.max()",
    "({m} * torch.where({a} < 0, {a}, 0)).sum()",
    "({m} * {a} * ({a} > 0)).sum()",
    "F.relu(({m} * {a}).sum())",
    "{a}[0]",
    "{a}[-1]",
)


@dataclass(frozen=True)
class Case:
    """A program as text, and the point."""

    source: str
    point: tuple[float, ...]

    def function(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The program."""
        space: dict[str, object] = {"torch": torch, "F": torch.nn.functional, "filled": _filled}
        exec(self.source, space)  # noqa: S102 - written by `make_case`
        return space["f"]  # type: ignore[return-value]


def _filled(a: torch.Tensor) -> torch.Tensor:
    out = a * 1
    out[out < 0] = 0.0
    return out


def make_case(seed: int, families: tuple[tuple[str, ...], ...] = (VECTORS,)) -> Case:
    """A random program with kinks at its point."""
    r = random.Random(seed)
    n, size = r.randint(1, 3), r.randint(2, 3)
    point = [float(r.choice((0, 0, 0, 1, -1, 2))) for _ in range(n)]
    lines, vectors, scalars = [], [], []

    def constant(values: tuple[float, ...]) -> str:
        return f"torch.tensor({[r.choice(values) for _ in range(size)]}, dtype=torch.float64)"

    def filled_in(template: str) -> str:
        return template.format(
            a=r.choice(vectors[-3:]),
            b=r.choice(vectors),
            m=constant((0.0, 0.0, 1.0, 1.0, -1.0, 2.0)),
            k=r.choice((0.0, 0.5, -1.0, 2.0)),
            p=r.sample(range(size), size),
            n=size,
            s=r.choice(scalars) if scalars else f"{r.choice(vectors)}[0]",
        )

    for number in range(r.randint(1, 2)):
        matrix = [[r.choice((0, 0, 1, -1, 2)) for _ in range(n)] for _ in range(size)]
        at = [sum(c * p for c, p in zip(row, point, strict=True)) for row in matrix]
        bias = [-v + r.choice((0, 0, 0, 1, -1)) for v in at]
        lines.append(
            f"u{number} = torch.tensor({matrix}, dtype=torch.float64) @ x"
            f" + torch.tensor({bias}, dtype=torch.float64)"
        )
        vectors.append(f"u{number}")
    for number in range(r.randint(1, 4)):
        if r.random() < 0.3:
            lines.append(f"s{number} = {filled_in(r.choice(SCALARS))}")
            scalars.append(f"s{number}")
        else:
            lines.append(f"v{number} = {filled_in(r.choice(r.choice(families)))}")
            vectors.append(f"v{number}")
    ends = [filled_in(r.choice(SCALARS)) for _ in range(r.randint(1, 2))]
    ends += [r.choice(scalars)] if scalars else []
    lines.append("return " + " + ".join(ends))
    return Case("def f(x):\n    " + "\n    ".join(lines) + "\n", tuple(point))


def gradient_at(
    function: Callable[[torch.Tensor], torch.Tensor], point: np.ndarray
) -> tuple[float, np.ndarray]:
    """Value and gradient."""
    x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    value = function(x)
    if not value.requires_grad:
        return float(value), np.zeros(len(point))
    (found,) = torch.autograd.grad(value, x)
    return float(value.detach()), found.numpy()


@dataclass(frozen=True)
class Around:
    """What was found around a point.

    Attributes:
        continuous: No jump was seen, at the point or beside it.
        gradients: (k, n) the different gradients.
    """

    continuous: bool
    gradients: np.ndarray


def look_around(case: Case, samples: int = 150, seed: int = 0) -> Around:
    """Sample gradients in all generic directions, with thin cones by two scales."""
    function, generator = case.function(), np.random.default_rng(seed)
    point, n = np.array(case.point), len(case.point)
    here = gradient_at(function, point)[0]
    seen: list[tuple[np.ndarray, float, np.ndarray]] = []
    continuous = True
    for number in range(samples):
        d = generator.normal(size=n)
        if number % 2:
            d = generator.integers(-2, 3, size=n) + _SECOND * generator.normal(size=n)
        value, slope = gradient_at(function, point + STEP * d)
        continuous &= abs(value - here - STEP * slope @ d) <= _APART * STEP
        seen.append((d, value, slope))
    for number in range(1, len(seen)):
        (d, v, g), (e, w, h) = seen[number - 1], seen[number]
        if continuous and not np.array_equal(g, h):
            continuous = _continuous_between(function, point, (d, v, g), (e, w, h))
    found = np.unique(np.array([g for _, _, g in seen]).round(9) + 0.0, axis=0)
    return Around(bool(continuous), found)


def _continuous_between(function, point, one, two) -> bool:
    """Whether values agree across the first boundary between two offsets."""
    (d, v, g), (e, w, _) = one, two
    for _ in range(_BISECTIONS):
        middle = (d + e) / 2
        value, slope = gradient_at(function, point + STEP * middle)
        if np.array_equal(slope, g):
            d, v = middle, value
        else:
            e, w = middle, value
    return bool(abs(v - w) <= _APART * STEP * 10)


def in_hull(gradients: np.ndarray, vector: np.ndarray, slack: float = 1e-7) -> bool:
    """Whether a vector is a convex combination of others, by linear programming."""
    k, n = gradients.shape
    cost = np.concatenate([np.zeros(k), np.ones(2 * n)])
    equal = np.block(
        [[gradients.T, np.eye(n), -np.eye(n)], [np.ones((1, k)), np.zeros((1, 2 * n))]]
    )
    found = linprog(cost, A_eq=equal, b_eq=np.concatenate([vector, [1.0]]))
    return bool(found.status == 0 and found.fun <= slack)
