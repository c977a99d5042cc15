"""Polynomials with rational coefficients: exact local pieces of a program around a point."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from reference.expr import Point

Exponents = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Poly:
    """A polynomial in `size` variables: nonzero coefficients by exponents.

    Around a point the variables are displacements, so the constant term is the value at the point
    and the linear coefficients are the gradient there.
    """

    size: int
    terms: dict[Exponents, Fraction]

    @staticmethod
    def constant(size: int, value: Fraction) -> Poly:
        """The constant polynomial."""
        return Poly(size, {(0,) * size: value} if value else {})

    @staticmethod
    def affine(value: Fraction, gradient: Point) -> Poly:
        """Value plus gradient times displacement."""
        size = len(gradient)
        terms = {_unit(size, k): slope for k, slope in enumerate(gradient) if slope}
        return Poly(size, terms | Poly.constant(size, value).terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __add__(self, other: Poly) -> Poly:
        terms = dict(self.terms)
        for exponents, coefficient in other.terms.items():
            terms[exponents] = terms.get(exponents, 0) + coefficient
        return Poly(self.size, {key: value for key, value in terms.items() if value})

    def __neg__(self) -> Poly:
        return Poly(self.size, {key: -value for key, value in self.terms.items()})

    def __sub__(self, other: Poly) -> Poly:
        return self + -other

    def __mul__(self, other: Poly) -> Poly:
        terms: dict[Exponents, Fraction] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                key = tuple(i + j for i, j in zip(left, right, strict=True))
                terms[key] = terms.get(key, 0) + a * b
        return Poly(self.size, {key: value for key, value in terms.items() if value})

    def piece(self, slope: Fraction, intercept: Fraction) -> Poly:
        """Slope * self + intercept."""
        scaled = {key: slope * value for key, value in self.terms.items()} if slope else {}
        return Poly(self.size, scaled) + Poly.constant(self.size, intercept)

    @property
    def value(self) -> Fraction:
        """The value at the point."""
        return self.terms.get((0,) * self.size, Fraction(0))

    @property
    def gradient(self) -> Point:
        """The gradient at the point."""
        zero = Fraction(0)
        return tuple(self.terms.get(_unit(self.size, k), zero) for k in range(self.size))

    @property
    def degree(self) -> int:
        """The total degree; 0 for the zero polynomial."""
        return max((sum(key) for key in self.terms), default=0)

    def leading_sign(self) -> int:
        """For one variable t: the sign for all small t > 0, that of the lowest coefficient."""
        if not self.terms:
            return 0
        return 1 if self.terms[min(self.terms)] > 0 else -1


def _unit(size: int, k: int) -> Exponents:
    return (0,) * k + (1,) + (0,) * (size - k - 1)
