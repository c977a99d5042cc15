"""The point of a convex hull that is nearest to a target, by elements in chosen directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from clarke.deadline import UNLIMITED
from clarke.feasibility import minimum_norm_point
from clarke.numerics import PROJECTION_CLOSE, PROJECTION_GAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from clarke.deadline import Deadline

    Array = NDArray[np.float64]

Name = TypeVar("Name")

ROUNDS = 400
_POLISHED = 2


@dataclass(frozen=True, eq=False)
class Projection(Generic[Name]):
    """Where the search ended.

    Attributes:
        point: (n,) the nearest point.
        names: The elements used.
        weights: Their convex weights.
        distance: Euclidean distance to the target.
        direction: (n,) unit vector from the point to the target, zero where they coincide.
    """

    point: Array
    names: tuple[Name, ...]
    weights: tuple[float, ...]
    distance: float
    direction: Array


def project(
    extreme: Callable[[Array], tuple[Name, Array]],
    target: Array,
    start: Array,
    size: float,
    rounds: int = ROUNDS,
    deadline: Deadline = UNLIMITED,
    close: float = float(PROJECTION_CLOSE),
) -> Projection[Name]:
    """Project a target onto the hull of a set.

    Wolfe's minimum-norm-point method (1976), fully corrective: the hull of few elements is
    projected onto exactly, and the element farthest in the direction left over is added.

    Args:
        extreme: The element with the largest inner product with a direction, and its name; equal
            elements have equal names.
        target: (n,) the target.
        start: (n,) the first direction.
        size: Of the entries.
        rounds: How many elements to ask for.
        deadline: When to give up.
        close: The part of the size that counts as no distance.
    """
    unit = 2.0 ** -int(np.clip(np.frexp(size)[1], -1000, 1000))  # squares stay in range, bits stay
    name, element = extreme(start)
    names, points = [name], [unit * (element - target)]
    weights = np.ones(1)
    for _ in range(rounds):
        deadline.ask("looking for the nearest generalized gradient")
        stacked = np.stack(points)
        weights = minimum_norm_point(stacked, deadline)
        rest = weights @ stacked
        norm = float(np.linalg.norm(rest))
        if norm <= close * unit * size:
            break
        name, element = extreme(-rest)
        candidate = unit * (element - target)
        if float(rest @ (rest - candidate)) <= PROJECTION_GAIN * norm * norm or name in names:
            break
        keep = weights > 0
        names = [a for a, k in zip(names, keep, strict=True) if k] + [name]
        points = [p for p, k in zip(points, keep, strict=True) if k] + [candidate]
        weights = np.append(weights[keep], 0.0)
    stacked = np.stack(points)
    weights = _polished(stacked, weights)
    rest = weights @ stacked
    norm = float(np.linalg.norm(rest))
    used = np.flatnonzero(weights > 0)
    return Projection(
        rest / unit + target,
        tuple(names[i] for i in used),
        tuple(float(weights[i]) for i in used),
        norm / unit,
        -rest / norm if norm > 0 else np.zeros_like(rest),
    )


def _polished(points: Array, weights: Array) -> Array:
    """Weights of the same points that bring their mean nearer to zero, to the last digits.

    A projection ends where it is near enough to its own scale; a hull may be thinner than that.
    """
    used = np.flatnonzero(weights > 0)
    own = points[used]
    sizes = np.abs(own).max(axis=0)
    seen = own[:, sizes > 0] / sizes[sizes > 0]
    system = np.vstack([seen.T, np.ones(len(used))])
    best, w = weights, weights[used]
    for _ in range(_POLISHED):
        short = np.append(-(w @ seen), 1.0 - w.sum())
        w = w + np.linalg.lstsq(system, short, rcond=None)[0]
        if bool((w < 0).any()):
            break
        moved = np.zeros_like(weights)
        moved[used] = w / w.sum()
        if np.linalg.norm(moved @ points) < np.linalg.norm(best @ points):
            best = moved
    return best
