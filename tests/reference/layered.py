"""Random programs of vector operations in torch, with their exact sets.

Layers of small whole numbers and kinks, written twice: in torch, by operations on whole vectors
(`sort`, `cummax`, masks, pooling), and as `Expr`, whose cells are found by exact rational programs.
On both sides of the piecewise linear part stands what changes its set in a known way: units of the
variables, a curved change of coordinates that is the identity to first order (the kinks are curved
then), and a smooth factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from reference.affine import Cell, cells
from reference.build import (
    absolute,
    clamp,
    largest,
    leaky_relu,
    relu,
    relu6,
    smallest,
    softshrink,
    variables,
)
from reference.expr import Expr, Point, evaluate, lift

Vector = list[Expr]
Operation = tuple[Callable[[Tensor], Tensor], Callable[[Vector], Vector]]


def _sorted(h: Vector) -> Vector:
    """In ascending order, by comparing neighbours."""
    out = list(h)
    for end in range(len(out) - 1, 0, -1):
        for i in range(end):
            pair = out[i : i + 2]
            out[i], out[i + 1] = smallest(pair), largest(pair)
    return out


def _prefixes(h: Vector) -> Vector:
    return [largest(h[: i + 1]) if i else h[0] for i in range(len(h))]


def _neighbours(h: Vector) -> Vector:
    return [largest(h[i : i + 2]) for i in range(len(h) - 1)]


def _flipped(h: Vector) -> Vector:
    return [largest([a, b]) for a, b in zip(h, reversed(h), strict=True)]


def _each(function: Callable[[Expr], Expr]) -> Callable[[Vector], Vector]:
    return lambda h: [function(entry) for entry in h]


def _total(h: Vector) -> Expr:
    total = h[0]
    for entry in h[1:]:
        total = total + entry
    return total


OPERATIONS: dict[str, Operation] = {
    "relu": (F.relu, _each(relu)),
    "abs": (torch.abs, _each(absolute)),
    "leaky": (lambda h: F.leaky_relu(h, 0.5), _each(lambda e: leaky_relu(e, Fraction(1, 2)))),
    "rrelu": (
        lambda h: F.prelu(h, h.new_tensor([-0.5])),
        _each(lambda e: leaky_relu(e, Fraction(-1, 2))),
    ),
    "hardtanh": (F.hardtanh, _each(lambda e: clamp(e, -1, 1))),
    "clamp": (lambda h: h.clamp(0, 1), _each(lambda e: clamp(e, 0, 1))),
    "relu6": (F.relu6, _each(relu6)),
    "softshrink": (lambda h: F.softshrink(h, 1.0), _each(lambda e: softshrink(e, 1))),
    "mask": (lambda h: h * (h > 0), _each(relu)),
    "mask of numbers": (lambda h: h * (h >= 0).to(h.dtype), _each(relu)),
    "masked fill": (lambda h: h.masked_fill(h < 0, 0.0), _each(relu)),
    "where": (lambda h: torch.where(h > 0, h, -2 * h), _each(lambda e: leaky_relu(e, -2))),
    "sign": (lambda h: h * h.sign(), _each(absolute)),
    "saturated": (
        lambda h: torch.where(h.abs() < 1, h, h.sign()),
        _each(lambda e: clamp(e, -1, 1)),
    ),
    "sort": (lambda h: h.sort().values, _sorted),
    "sort by index": (lambda h: h[h.argsort()], _sorted),
    "cummax": (lambda h: h.cummax(0).values, _prefixes),
    "pool": (lambda h: F.max_pool1d(h[None], 2, 1)[0], _neighbours),
    "unfold": (lambda h: h.unfold(0, 2, 1).amax(1), _neighbours),
    "maximum": (lambda h: torch.maximum(h, h.flip(0)), _flipped),
    "where of two": (lambda h: torch.where(h > h.flip(0), h, h.flip(0)), _flipped),
    "amax": (lambda h: h.amax(0, keepdim=True), lambda h: [largest(h)]),
    "max": (lambda h: h.max().reshape(1), lambda h: [largest(h)]),
    "argmax": (
        lambda h: h.gather(0, h.argmax(0, keepdim=True)),
        lambda h: [largest(h)],
    ),
    "aminmax": (lambda h: torch.stack(torch.aminmax(h)), lambda h: [smallest(h), largest(h)]),
    "median": (lambda h: h.median().reshape(1), lambda h: [_sorted(h)[(len(h) - 1) // 2]]),
    "topk": (lambda h: h.topk(2).values, lambda h: _sorted(h)[:-3:-1]),
    "kthvalue": (lambda h: h.kthvalue(2).values.reshape(1), lambda h: [_sorted(h)[1]]),
    "one norm": (
        lambda h: torch.linalg.vector_norm(h, 1).reshape(1),
        lambda h: [_total([absolute(e) for e in h])],
    ),
    "largest norm": (
        lambda h: torch.linalg.vector_norm(h, float("inf")).reshape(1),
        lambda h: [largest([absolute(e) for e in h])],
    ),
    "range": (
        lambda h: (h.amax() - h.amin()).reshape(1),
        lambda h: [largest(h) - smallest(h)],
    ),
    "differences": (
        lambda h: (h[:, None] - h[None, :]).abs().sum(1),
        lambda h: [_total([absolute(a - b) for b in h]) for a in h],
    ),
}


@dataclass(frozen=True)
class _Layer:
    name: str
    weights: tuple[tuple[Fraction, ...], ...]
    bias: tuple[Fraction, ...]


@dataclass(frozen=True)
class Layered:
    """A program: ``(1 + slope . (u - p)) (out . h)``, h the joined layers of ``u``, curved or not.

    Attributes:
        units: (n,) powers of two; ``u = units * x``.
        base: (n,) the point in u.
        curved: (n, n, n) whole numbers; u moves by ``curved[i] : (u - p)(u - p)``, too.
        layers: Each sees the coordinates and all earlier layers' entries.
        out: The weights of all entries.
        slope: (n,) of the factor.
    """

    units: Point
    base: Point
    curved: tuple[tuple[tuple[int, ...], ...], ...] | None
    layers: tuple[_Layer, ...]
    out: Point
    slope: Point

    @property
    def point(self) -> Tensor:
        """Where, as variables."""
        return _tensor([b / s for b, s in zip(self.base, self.units, strict=True)])

    def __call__(self, x: Tensor) -> Tensor:
        """The program in torch."""
        d = _tensor(self.units) * x - _tensor(self.base)
        u = d + _tensor(self.base)
        if self.curved is not None:
            u = u + torch.einsum("ijk,j,k->i", torch.tensor(self.curved, dtype=x.dtype), d, d)
        seen = u
        for layer in self.layers:
            h = torch.stack([_tensor(w) for w in layer.weights]) @ seen + _tensor(layer.bias)
            seen = torch.cat([seen, OPERATIONS[layer.name][0](h)])
        value = _tensor(self.out) @ seen
        return value * (1 + _tensor(self.slope) @ d) if any(self.slope) else value

    @cached_property
    def expr(self) -> Expr:
        """The piecewise linear part in u."""
        seen: Vector = list(variables(len(self.base)))
        for layer in self.layers:
            h = [_affine(w, seen, b) for w, b in zip(layer.weights, layer.bias, strict=True)]
            seen = seen + OPERATIONS[layer.name][1](h)
        return _affine(self.out, seen, Fraction(0))

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of the piecewise linear part in u, by exact linear programs."""
        return cells(self.expr, self.base)

    def in_variables(self, gradient: Point) -> Point:
        """A gradient of the piecewise linear part as one of the whole program."""
        here = evaluate(self.expr, self.base)
        return tuple(
            s * (g + here * m) for g, m, s in zip(gradient, self.slope, self.units, strict=True)
        )

    @cached_property
    def bouligand(self) -> frozenset[Point]:
        """The exact set."""
        return frozenset(self.in_variables(cell.gradient) for cell in self.cells)

    def directional(self, direction: Sequence[Fraction]) -> Fraction:
        """The exact directional derivative."""
        t = Fraction(1, 2**400)
        moved = [s * e for s, e in zip(self.units, direction, strict=True)]
        at = [b + t * m for b, m in zip(self.base, moved, strict=True)]
        here = evaluate(self.expr, self.base)
        rate = (evaluate(self.expr, at) - here) / t
        along = sum((a * b for a, b in zip(self.slope, moved, strict=True)), Fraction(0))
        return rate + here * along


def layered(seed: int) -> Layered:
    """A random program and point, most of its kinks touched there."""
    random = Random(seed)  # noqa: S311 - repeatable, no secret
    n = random.choice((1, 2, 2, 3, 3, 4))
    spread = random.choice((0, 0, 27))  # binary orders of magnitude, 1e-8 to 1e8
    units = tuple(_power(random, random.choice((0, spread))) for _ in range(n))
    base = tuple(Fraction(random.choice((0, 0, 0, 1, -1, 2))) for _ in range(n))
    curved = None
    if random.random() < 0.3:
        curved = tuple(
            tuple(tuple(random.choice((0, 0, 1, -1)) for _ in range(n)) for _ in range(n))
            for _ in range(n)
        )
    seen: Vector = list(variables(n))
    layers = []
    for _ in range(random.choice((1, 1, 2, 2, 3))):
        layer, added = _draw_layer(random, seen, base, spread)
        layers.append(layer)
        seen = seen + added
    few = [random.choice((0, 1, -1)) for _ in range(n)]
    rest = [random.choice((1, 1, -1, 2, -2, 0)) for _ in range(len(seen) - n)]
    out = tuple(Fraction(v) * _power(random, random.choice((0, spread))) for v in few + rest)
    slope = tuple(Fraction(random.choice((0, 1, -1))) for _ in range(n))
    smooth = random.random() < 0.2
    return Layered(units, base, curved, tuple(layers), out, slope if smooth else (Fraction(0),) * n)


def _draw_layer(random: Random, seen: Vector, base: Point, spread: int) -> tuple[_Layer, Vector]:
    name = random.choice(sorted(OPERATIONS))
    m = random.choice((2, 2, 3, 3, 4))
    if name in ("differences", "sort", "sort by index"):
        m = min(m, 3)
    scale = _power(random, spread)
    weights, bias, h = [], [], []
    for _ in range(m):
        row = [Fraction(random.choice((0, 0, 1, 1, -1, -1, 2, -2))) for _ in seen]
        # Entries that are compared have one size; others each their own.
        size = scale if random.random() < 0.7 else _power(random, spread)
        level = Fraction(random.choice((0, 0, 0, 0, 0, 1, -1)))
        row = [size * v for v in row]
        plain = _affine(row, seen, Fraction(0))
        shift = level - evaluate(plain, base)
        weights.append(tuple(row))
        bias.append(shift)
        h.append(_affine(row, seen, shift))
    return _Layer(name, tuple(weights), tuple(bias)), OPERATIONS[name][1](h)


def _affine(weights: Sequence[Fraction], of: Vector, shift: Fraction) -> Expr:
    total = lift(shift)
    for weight, entry in zip(weights, of, strict=True):
        if weight:
            total = total + weight * entry
    return total


def _power(random: Random, spread: int) -> Fraction:
    return Fraction(2) ** random.randint(-spread, spread)


def _tensor(values: Sequence[Fraction]) -> Tensor:
    return torch.tensor([float(v) for v in values], dtype=torch.float64)
