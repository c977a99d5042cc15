"""The linear pieces of a program that meet a ball, in exact rational arithmetic.

A piece is where every maximum has one largest argument and every sign is constant: a polyhedron,
kept as the cone over it with one more coordinate, which hyperplanes cut exactly
(`clarke.decide.cone`). Pieces that stay away from the ball are left out on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linprog, nnls

from clarke.arrangement import primitive
from clarke.decide.cone import Cone
from clarke.feasibility.exact_mean import meets_box
from clarke.feasibility.rational import solve_exactly
from clarke.numerics import BALL_MARGIN
from clarke.proof.cells import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.arrangement import Row
    from clarke.deadline import Deadline

    Array = NDArray[np.float64]
    Form = tuple[Fraction, ...]  # slopes, and the value at the centre


class CurvedError(Exception):
    """The program is not piecewise linear around the point; says where."""


@dataclass(frozen=True)
class Ball:
    """All vectors up to some size.

    Attributes:
        radius: Positive.
        round: Its size is its length; else its largest entry.
    """

    radius: Fraction
    round: bool


@dataclass(frozen=True, eq=False)
class Piece:
    """A linear piece.

    Attributes:
        gradient: (n,) its gradient.
        near: (n,) a point of its closure in the ball, as a step from the centre.
        inside: (n,) a point strictly inside of it, likewise.
        meets: Whether its closure meets the ball, where that was told.
    """

    gradient: Array
    near: Array
    inside: Array
    meets: bool | None


@dataclass(frozen=True, eq=False)
class _Branch:
    """Choices so far.

    Attributes:
        forms: The cells' values.
        cone: Over the polyhedron.
        rows: The functions that are positive in it.
        witness: (n,) a vector of entries up to the radius at which they are, if one is known.
    """

    forms: tuple[Form, ...]
    cone: Cone
    rows: tuple[Form, ...]
    witness: Array | None


def pieces(
    code: Sequence[tuple[int, ...]],
    constants: Sequence[Fraction],
    output: int,
    point: Sequence[Fraction],
    ball: Ball,
    deadline: Deadline,
) -> list[Piece]:
    """The pieces whose closure meets a ball around a point.

    Args:
        code: Instructions: a word, a row, and cells; constants have numbers below zero.
        constants: Their values, that of cell -1 first.
        output: The cell of the result.
        point: The centre.
        ball: The ball.
        deadline: Asked at every branch.

    Raises:
        CurvedError: The program is not piecewise linear.
    """
    walk = _Walk(code, constants, len(point), ball, deadline)
    n = len(point)
    variables = tuple((*(Fraction(int(i == j)) for j in range(n)), p) for i, p in enumerate(point))
    ahead = Cone.whole(n + 1).cut((*(0 for _ in range(n)), 1))
    if ahead is None:
        raise AssertionError
    stack = [_Branch(variables, ahead, (), np.zeros(n))]
    found: list[Piece] = []
    while stack:
        branch = stack.pop()
        deadline.ask("{} pieces so far, {} branches to follow", len(found), len(stack))
        at = len(branch.forms) - n
        if at < len(code):
            stack += walk.follow(branch, code[at])
            continue
        piece = walk.end(branch, output)
        found += [] if piece.meets is False else [piece]
    return found


class _Walk:
    def __init__(
        self,
        code: Sequence[tuple[int, ...]],
        constants: Sequence[Fraction],
        size: int,
        ball: Ball,
        deadline: Deadline,
    ) -> None:
        self._code, self._size, self._ball, self._deadline = code, size, ball, deadline
        zero = (Fraction(0),) * size
        self._constants = [(*zero, c) for c in constants]

    def _form(self, branch: _Branch, cell: int) -> Form:
        return self._constants[-1 - cell] if cell < 0 else branch.forms[cell]

    def follow(self, branch: _Branch, instruction: tuple[int, ...]) -> list[_Branch]:
        """The branches after an instruction."""
        word, _, *cells = instruction
        forms = [self._form(branch, c) for c in cells]
        match Word(word):
            case Word.SUM:
                return [self._with(branch, self._products(forms))]
            case Word.MAX:
                return self._largest(branch, list(dict.fromkeys(forms)))
            case Word.SIGN:
                return self._signs(branch, forms[0])
            case Word.PICK:
                by, below, at, above = forms
                if any(by[:-1]):
                    raise CurvedError("a choice by a number that varies")
                return [self._with(branch, (at, above, below)[_sign(by[-1])])]
            case Word.INVERSE if not any(forms[0][:-1]) and forms[0][-1]:
                return [self._with(branch, (*forms[0][:-1], 1 / forms[0][-1]))]
            case other:
                raise CurvedError(f"a function that bends ({other.name.lower()})")

    @staticmethod
    def _with(branch: _Branch, form: Form) -> _Branch:
        return replace(branch, forms=(*branch.forms, form))

    def _products(self, forms: list[Form]) -> Form:
        total = [Fraction(0)] * (self._size + 1)
        for x, y in zip(forms[::2], forms[1::2], strict=True):
            factor, other = (x, y) if not any(x[:-1]) else (y, x)
            if any(factor[:-1]):
                raise CurvedError("a product of two numbers that vary")
            if factor[-1]:
                total = [t + factor[-1] * v for t, v in zip(total, other, strict=True)]
        return tuple(total)

    def _largest(self, branch: _Branch, forms: list[Form]) -> list[_Branch]:
        found = []
        for i, best in enumerate(forms):
            gaps = [
                tuple(a - b for a, b in zip(best, other, strict=True))
                for j, other in enumerate(forms)
                if j != i
            ]
            narrowed = self._narrowed(branch, gaps)
            found += [] if narrowed is None else [self._with(narrowed, best)]
        return found

    def _signs(self, branch: _Branch, form: Form) -> list[_Branch]:
        zero = (Fraction(0),) * self._size
        if not any(form[:-1]):
            return [self._with(branch, (*zero, Fraction(_sign(form[-1]))))]
        found = []
        for sign in (1, -1):
            narrowed = self._narrowed(branch, [tuple(sign * v for v in form)])
            found += [] if narrowed is None else [self._with(narrowed, (*zero, Fraction(sign)))]
        return found

    def _narrowed(self, branch: _Branch, rows: Sequence[Form]) -> _Branch | None:
        """A branch in which some functions are positive; None if it is empty, or far away."""
        cone, kept = branch.cone, list(branch.rows)
        for row in rows:
            if not any(row[:-1]):
                if row[-1] <= 0:
                    return None
                continue
            cut = cone.cut(_whole(row), self._deadline)
            if cut is None:
                return None
            cone = cut
            kept.append(row)
        witness = branch.witness
        added = kept[len(branch.rows) :]
        if added and not (witness is not None and _are_positive(added, witness)):
            self._deadline.ask()
            margin, at = _margin(kept, float(self._ball.radius))
            if margin < -BALL_MARGIN:
                return None
            witness = at if margin > BALL_MARGIN else None
        return replace(branch, cone=cone, rows=tuple(kept), witness=witness)

    def end(self, branch: _Branch, output: int) -> Piece:
        """The piece at the end of a branch."""
        form = self._form(branch, output)
        gradient = np.array([float(v) for v in form[:-1]])
        *inner, height = branch.cone.interior()
        inside = np.array([float(Fraction(v, height)) for v in inner])
        radius = float(self._ball.radius)
        if not branch.rows:
            return Piece(gradient, np.zeros(self._size), np.zeros(self._size), meets=True)
        if self._ball.round:
            near, meets = _in_round_ball(branch.rows, self._ball.radius, self._deadline)
        else:
            margin, near = _margin(branch.rows, radius)
            meets = margin > 0
            if abs(margin) <= BALL_MARGIN:
                meets = meets_box(branch.rows, self._ball.radius, self._deadline)
        return Piece(gradient, near, inside, meets)


def _sign(value: Fraction) -> int:
    return (value > 0) - (value < 0)


def _whole(row: Form) -> Row:
    scale = lcm(*(v.denominator for v in row))
    return primitive([int(v * scale) for v in row])


def _are_positive(rows: Sequence[Form], vector: Array) -> bool:
    """Whether functions are positive at a vector by more than rounding."""
    table = np.array([[float(v) for v in row] for row in rows])
    point = np.append(vector, 1.0)
    return bool((table @ point > BALL_MARGIN * (np.abs(table) @ np.abs(point))).all())


def _margin(rows: Sequence[Form], radius: float) -> tuple[float, Array]:
    """How far inside of all rows a vector of entries up to a radius comes, and the vector."""
    table = np.array([[float(v) for v in row] for row in rows])
    slopes, ends = table[:, :-1] * radius, table[:, -1]
    sizes = np.maximum(np.abs(slopes).max(axis=1), np.abs(ends))
    slopes, ends = slopes / sizes[:, None], ends / sizes
    count, size = slopes.shape
    found = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.c_[-slopes, np.ones(count)],
        b_ub=ends,
        bounds=[*[(-1.0, 1.0)] * size, (None, 1.0)],
        method="highs",
    )
    if found.x is None:
        return 0.0, np.zeros(size)
    return float(found.x[-1]), radius * found.x[:-1]


def _in_round_ball(
    rows: Sequence[Form], radius: Fraction, deadline: Deadline
) -> tuple[Array, bool | None]:
    """The shortest vector that satisfies all rows, and whether it is no longer than a radius.

    Least distance programming by non-negative least squares (Lawson and Hanson 1974); near a tie
    the rows that hold with equality are solved exactly. None where these are not the right ones.
    """
    table = np.array([[float(v) for v in row] for row in rows])
    slopes, ends = table[:, :-1] * float(radius), table[:, -1]
    sizes = np.maximum(np.abs(slopes).max(axis=1), np.abs(ends))
    system = np.c_[slopes, -ends].T / sizes
    goal = np.append(np.zeros(len(system) - 1), 1.0)
    shares, _ = nnls(system, goal)
    left = system @ shares - goal
    if left[-1] == 0:
        return np.zeros(len(goal) - 1), None
    short = -left[:-1] / left[-1]
    length = float(np.linalg.norm(short))
    near = float(radius) * short / max(length, 1.0)
    if abs(length - 1) > BALL_MARGIN:
        return near, length < 1
    active = [rows[i] for i in np.flatnonzero(shares > 0).tolist()]
    found = _shortest(active, deadline)
    if found is None or any(_at(row, found) < 0 for row in rows):
        return near, None
    return near, sum(v * v for v in found) <= radius**2


def _shortest(rows: Sequence[Form], deadline: Deadline) -> list[Fraction] | None:
    """The shortest vector on which some rows are zero, pushed away by each; None if it is not."""
    gram = [[_dot(a[:-1], b[:-1]) for b in rows] for a in rows]
    shares = solve_exactly(gram, [-row[-1] for row in rows], deadline)
    if shares is None or min(shares, default=Fraction(0)) < 0:
        return None
    return [
        sum((s * row[i] for s, row in zip(shares, rows, strict=True)), Fraction(0))
        for i in range(len(rows[0]) - 1)
    ]


def _at(row: Form, vector: Sequence[Fraction]) -> Fraction:
    return _dot(row[:-1], vector) + row[-1]


def _dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))
