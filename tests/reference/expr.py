"""Small programs as expressions: variables, rational constants, arithmetic, kinks.

Nodes compare by identity, so a node used twice is one intermediate result, as in real code.
Every kink has a `via` (`reference.vias`), the way PyTorch is asked to compute it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from reference.vias import ExtremumVia, PointwiseVia

Rational = int | Fraction
Point = tuple[Fraction, ...]
T = TypeVar("T")


class Expr:
    """Base of all nodes; gives them Python's operators."""

    def __add__(self, other: Expr | Rational) -> Expr:
        return Add(self, lift(other))

    def __radd__(self, other: Rational) -> Expr:
        return Add(lift(other), self)

    def __sub__(self, other: Expr | Rational) -> Expr:
        return Sub(self, lift(other))

    def __rsub__(self, other: Rational) -> Expr:
        return Sub(lift(other), self)

    def __mul__(self, other: Expr | Rational) -> Expr:
        return Mul(self, other) if isinstance(other, Expr) else Scale(Fraction(other), self)

    def __rmul__(self, other: Rational) -> Expr:
        return Scale(Fraction(other), self)

    def __neg__(self) -> Expr:
        return Scale(Fraction(-1), self)


@dataclass(frozen=True, eq=False, repr=False)
class Var(Expr):
    """The variable x_index."""

    index: int

    def __repr__(self) -> str:
        return f"x{self.index}"


@dataclass(frozen=True, eq=False, repr=False)
class Const(Expr):
    """A rational constant; dyadic ones are exact in floating point too."""

    value: Fraction

    def __repr__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, eq=False, repr=False)
class Add(Expr):
    """The sum of two expressions."""

    left: Expr
    right: Expr

    def __repr__(self) -> str:
        return f"({self.left!r} + {self.right!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Sub(Expr):
    """The difference of two expressions."""

    left: Expr
    right: Expr

    def __repr__(self) -> str:
        return f"({self.left!r} - {self.right!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Expr):
    """A constant times an expression."""

    factor: Fraction
    arg: Expr

    def __repr__(self) -> str:
        return f"{self.factor}*{self.arg!r}"


@dataclass(frozen=True, eq=False, repr=False)
class Mul(Expr):
    """The product of two expressions: makes the program piecewise polynomial."""

    left: Expr
    right: Expr

    def __repr__(self) -> str:
        return f"({self.left!r} * {self.right!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Square(Expr):
    """The square of an expression."""

    arg: Expr

    def __repr__(self) -> str:
        return f"square({self.arg!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Pointwise(Expr):
    """A continuous piecewise affine function of one argument.

    Piece `k` is `slope * x + intercept` and holds from `breaks[k-1]` to `breaks[k]`.
    """

    arg: Expr
    breaks: tuple[Fraction, ...]
    pieces: tuple[tuple[Fraction, Fraction], ...]
    via: PointwiseVia
    params: tuple[Fraction | None, ...] = ()

    def __repr__(self) -> str:
        values = "".join(f", {value}" for value in self.params)
        return f"{type(self.via).__name__[:-3]}.{self.via.name}({self.arg!r}{values})"


@dataclass(frozen=True, eq=False, repr=False)
class Extremum(Expr):
    """The maximum (`sign` 1) or minimum (`sign` -1) of several expressions."""

    items: tuple[Expr, ...]
    sign: int
    via: ExtremumVia

    def __repr__(self) -> str:
        name = "Max" if self.sign > 0 else "Min"
        return f"{name}.{self.via.name}({', '.join(map(repr, self.items))})"


def lift(value: Expr | Rational) -> Expr:
    """An expression as it is, a number as a constant."""
    return value if isinstance(value, Expr) else Const(Fraction(value))


def children(node: Expr) -> tuple[Expr, ...]:
    """The nodes that `node` is computed from."""
    match node:
        case Var() | Const():
            return ()
        case Scale() | Square() | Pointwise():
            return (node.arg,)
        case Extremum():
            return node.items
        case Add() | Sub() | Mul():
            return (node.left, node.right)
    raise TypeError(f"{type(node).__name__} is not a node of the reference language.")


def evaluation_order(root: Expr) -> list[Expr]:
    """Every node once, each after its children."""
    order: dict[Expr, None] = {}

    def visit(node: Expr) -> None:
        if node not in order:
            for child in children(node):
                visit(child)
            order[node] = None

    visit(root)
    return list(order)


def smooth(node: Expr, values: Mapping[Expr, T], constant: Callable[[Fraction], T]) -> T:
    """The value of a node without kinks, in any ring, from the values of its children."""
    match node:
        case Const():
            return constant(node.value)
        case Add():
            return values[node.left] + values[node.right]
        case Sub():
            return values[node.left] - values[node.right]
        case Scale():
            return constant(node.factor) * values[node.arg]
        case Mul():
            return values[node.left] * values[node.right]
        case Square():
            return values[node.arg] * values[node.arg]
    raise TypeError(f"{type(node).__name__} has kinks or is a variable.")


def values_at(root: Expr, point: Sequence[Rational]) -> dict[Expr, Fraction]:
    """The exact value of every node at `point`."""
    values: dict[Expr, Fraction] = {}
    for node in evaluation_order(root):
        match node:
            case Var():
                values[node] = Fraction(point[node.index])
            case Pointwise():
                x = values[node.arg]
                slope, intercept = node.pieces[sum(x > b for b in node.breaks)]
                values[node] = slope * x + intercept
            case Extremum():
                items = [values[item] for item in node.items]
                values[node] = max(items) if node.sign > 0 else min(items)
            case _:
                values[node] = smooth(node, values, Fraction)
    return values


def evaluate(root: Expr, point: Sequence[Rational]) -> Fraction:
    """The exact value of the program at `point`."""
    return values_at(root, point)[root]


def touched(root: Expr, point: Sequence[Rational]) -> list[Expr]:
    """The kinks at which two or more pieces meet at `point`, relevant or not."""
    values = values_at(root, point)
    found: list[Expr] = []
    for node in values:
        if isinstance(node, Pointwise) and values[node.arg] in node.breaks:
            found.append(node)
        if isinstance(node, Extremum):
            ties = sum(values[item] == values[node] for item in node.items)
            if ties > 1:
                found.append(node)
    return found
