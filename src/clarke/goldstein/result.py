"""What is known of a Goldstein subdifferential, and what follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.elements import distinct, vertices
from clarke.decide.limitset import Component, LimitSet
from clarke.decide.membership import allowed_for
from clarke.errors import InputError, UnsupportedError
from clarke.numerics import BALL_MARGIN, CONFIRMED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Parts = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class NearStationary:
    """Whether a mean of gradients in a ball is no longer than a bound, with what shows it.

    Attributes:
        answer: It is (True), it is not (False), or that is not known (None).
        element: The smallest mean that was found, one tensor per variable.
        norm: Its length.
        bound: No element is shorter than this; 0 where that is not known.
        elements: (k, n) the gradients whose mean it is.
        weights: (k,) their weights.
        points: (k, n) a point of the ball for each, at which its gradient is one of Clarke's.
    """

    answer: bool | None
    element: Parts
    norm: float
    bound: float
    elements: Array = field(repr=False)
    weights: Array = field(repr=False)
    points: Array = field(repr=False)

    def __bool__(self) -> bool:
        if self.answer is None:
            raise UnsupportedError(
                "Near-stationarity is undecided: no mean of the gradients found is as small, and "
                "they may not be all. Look at .answer, which is None."
            )
        return self.answer


@dataclass(frozen=True, eq=False)
class Goldstein:
    """Mixtures of the gradients of all points in a ball; see `clarke.goldstein`.

    Attributes:
        eps: The ball's radius.
        norm: 2 for a round ball, infinity for one of entries.
        exact: The elements are all there are, up to mixtures.
        elements: (k, n) gradients in the ball.
        points: (k, n) for each a point of the ball, in or beside whose piece it is the gradient.
        why: Where not exact, why not.
    """

    eps: float
    norm: float
    exact: bool
    elements: torch.Tensor = field(repr=False)
    points: torch.Tensor = field(repr=False)
    why: str
    _inside: Array = field(repr=False)
    _point: Parts = field(repr=False)
    _gradient: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]] = field(repr=False)

    def __str__(self) -> str:
        known = "all of them" if self.exact else f"maybe not all: {self.why}"
        return f"Goldstein: {len(self.elements)} gradients within {self.eps:g}, {known}"

    @property
    def _limits(self) -> LimitSet:
        changes = self.elements.numpy()
        return LimitSet(np.zeros(changes.shape[1]), (Component(changes, (), ()),))

    def vertices(self) -> torch.Tensor:
        """(k, n) the vertices of the hull of the elements.

        Raises:
            UnsupportedError: There may be more; see `elements`.
        """
        if not self.exact:
            raise UnsupportedError(
                f"The set is known only from below: {self.why}. `.elements` are in it."
            )
        points, nothing = self.elements.numpy(), np.zeros(self.elements.shape[1])
        own = points[distinct(points, nothing, UNLIMITED)]
        return torch.from_numpy(own[vertices(own, None, nothing, UNLIMITED)])

    def contains(self, vector: torch.Tensor | Sequence[torch.Tensor]) -> bool | None:
        """Whether a vector is in the set; None where that is not known."""
        parts = (vector,) if isinstance(vector, torch.Tensor) else tuple(vector)
        target = flatten(parts)
        limits = self._limits
        if len(target) != limits.size:
            raise InputError(
                f"The vector has {len(target)} entries; the variables have {limits.size}."
            )
        placed = limits.place(target, allowed_for(limits, parts, None))
        if placed.inside:
            return True
        return False if self.exact and placed.direction is not None else None

    def min_norm(self) -> Parts:
        """The smallest element; where not `exact`, the smallest that is known."""
        return self.near_stationary(0.0).element

    def near_stationary(self, delta: float) -> NearStationary:
        """Whether some element is no longer than `delta`: the point is (eps, delta)-stationary."""
        limits = self._limits
        near = limits.nearest(np.zeros(limits.size))
        used = [i for (i,) in near.atoms]
        elements = self.elements.numpy()[used]
        weights = np.array(near.weights)
        mean = weights @ elements
        length = float(np.linalg.norm(mean))
        room = float(np.linalg.norm(limits.roundings(mean)))
        bound = 0.0
        if self.exact and length > room:
            bound = max(float((self.elements.numpy() @ (mean / length)).min()) - room, 0.0)
        answer = True if length <= delta + room else False if bound > delta else None
        return NearStationary(
            answer,
            unflatten(mean, self._point),
            length,
            bound,
            elements,
            weights,
            self.points.numpy()[used],
        )

    def verify(self) -> bool:
        """Run the function beside every point: its gradient there, and the point in the ball."""
        centre = flatten(self._point)
        steps = self.points.numpy() - centre
        sizes = np.linalg.norm(steps, ord=self.norm, axis=1)
        if not bool((sizes <= self.eps * (1 + BALL_MARGIN)).all()):
            return False
        for at, element in zip(self._inside, self.elements.numpy(), strict=True):
            moved = unflatten(centre + at, self._point)
            own = flatten(self._gradient(moved))
            if not bool(
                (np.abs(own - element) <= CONFIRMED * np.abs(element).max(initial=1.0)).all()
            ):
                return False
        return True
