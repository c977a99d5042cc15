"""Candidate points: what people's data holds by accident, and what kinks are made of."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import torch

from clarke.hunt.solve import solved
from clarke.numerics import HUNT_LISTED

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from clarke.hunt.subject import Point, Subject

_EXTREMES = (1e3, -1e3, 1e-30, 1e30, -1e30)
_SPECIAL = (0.0, 1.0, -1.0, 0.5, 2.0, -0.5, -2.0, 3.0)


def pool(constants: Sequence[float]) -> tuple[float, ...]:
    """Special values, and the program's own constants with their opposites and neighbours."""
    own = [v for c in constants[: int(HUNT_LISTED)] for v in (c, -c, 1 - c, 1 + c)]
    return tuple(dict.fromkeys((*_SPECIAL, *own)))


def systematic(example: Point, values: Sequence[float]) -> Iterator[Point]:
    """Fills, copies between inputs, equal rows, single entries: each once, simple ones first."""
    yield example
    for v in values:
        yield tuple(torch.full_like(x, v) for x in example)
    for i, v in itertools.product(range(len(example)), values):
        yield _with(example, i, torch.full_like(example[i], v))
    for i, j in itertools.permutations(range(len(example)), 2):
        for sign in (1, -1):
            if example[i].shape == example[j].shape:
                yield _with(example, i, (sign * example[j]).to(example[i].dtype))
    for i, x in enumerate(example):
        for dim in range(x.dim()):
            if x.shape[dim] > 1:
                yield _with(example, i, x.narrow(dim, 0, 1).expand_as(x).contiguous())
    for i, x in enumerate(example):
        for entry, v in itertools.product(range(min(x.numel(), 8)), values[:4]):
            yield _with(example, i, _set(x, entry, v))
    for i, v in itertools.product(range(len(example)), _EXTREMES):
        yield _with(example, i, torch.full_like(example[i], v))


def endless(
    subject: Subject,
    values: Sequence[float],
    archive: Sequence[Point],
    rng: random.Random,
) -> Iterator[Point]:
    """Random points, for ever: changes of points that touched something new, and solutions."""
    while True:
        point = _base(_sized(subject.examples, rng), archive, values, rng)
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            point = rng.choice(_CHANGES)(point, values, rng)
        if rng.random() < 0.75:
            yield point
        else:
            with contextlib.suppress(Exception):  # the function may not take the point
                yield from solved(subject, point, rng)


def _base(
    example: Point, archive: Sequence[Point], values: Sequence[float], rng: random.Random
) -> Point:
    kind = rng.random()
    if archive and kind < 0.35:
        return rng.choice(archive)
    if kind < 0.45:
        return example
    if kind < 0.8:  # small numbers, on a coarse grid
        grid, top = rng.choice((1.0, 1.0, 0.5, 0.25)), rng.choice((1, 2, 3))
        low = rng.choice((0, -top))  # few different numbers: many coincidences
        draw: Callable[[], float] = lambda: rng.randint(low, top) * grid  # noqa: E731
    else:
        draw = lambda: rng.choice(values)  # noqa: E731
    return tuple(
        torch.tensor([draw() for _ in range(x.numel())], dtype=x.dtype).reshape(x.shape)
        for x in example
    )


def _sized(examples: Sequence[Point], rng: random.Random) -> Point:
    """An example, the smallest one more often: it is cheap, and every entry of it counts."""
    return examples[0] if rng.random() < 0.6 else rng.choice(examples)


def _with(point: Point, i: int, value: torch.Tensor) -> Point:
    return (*point[:i], value, *point[i + 1 :])


def _set(x: torch.Tensor, entry: int, value: float) -> torch.Tensor:
    new = x.clone()
    new.view(-1)[entry] = value
    return new


# --- random changes -------------------------------------------------------------------------------


def _some(point: Point, rng: random.Random) -> int:
    full = [i for i, x in enumerate(point) if x.numel()]
    return rng.choice(full) if full else 0


def _entry(point: Point, values: Sequence[float], rng: random.Random) -> Point:
    i = _some(point, rng)
    return _with(point, i, _set(point[i], rng.randrange(point[i].numel()), rng.choice(values)))


def _fill(point: Point, values: Sequence[float], rng: random.Random) -> Point:
    i = _some(point, rng)
    return _with(point, i, torch.full_like(point[i], rng.choice(values)))


def _equal(point: Point, values: Sequence[float], rng: random.Random) -> Point:
    """One entry becomes another, or its opposite, or that shifted by a special value."""
    i, j = _some(point, rng), _some(point, rng)
    source = float(point[j].reshape(-1)[rng.randrange(point[j].numel())])
    value = rng.choice((source, source, -source, source + rng.choice(values)))
    return _with(point, i, _set(point[i], rng.randrange(point[i].numel()), value))


def _copy(point: Point, values: Sequence[float], rng: random.Random) -> Point:
    """A whole input becomes another of its shape, or its opposite, or a multiple of it."""
    i, j = _some(point, rng), _some(point, rng)
    if point[i].shape != point[j].shape:
        return _equal(point, values, rng)
    factor = rng.choice((1.0, 1.0, -1.0, rng.choice(values)))
    return _with(point, i, (factor * point[j]).to(point[i].dtype))


def _row(point: Point, values: Sequence[float], rng: random.Random) -> Point:
    """A row becomes another one of any input, its multiple, zero or a unit vector."""
    i, j = _some(point, rng), _some(point, rng)
    x, y = point[i], point[j]
    if not x.dim() or not y.dim() or x.shape[-1] != y.shape[-1]:
        return _equal(point, values, rng)
    new = x.clone()
    rows = new.reshape(-1, x.shape[-1])
    place = rng.randrange(len(rows))
    source = y.reshape(rows.shape[1] and -1, y.shape[-1])
    kind = rng.random()
    if kind < 0.6:
        factor = rng.choice((1.0, 1.0, -1.0, rng.choice(values)))
        rows[place] = factor * source[rng.randrange(len(source))].to(x.dtype)
    else:
        rows[place] = 0.0
        if kind < 0.8:
            rows[place, rng.randrange(rows.shape[1])] = rng.choice(values)
    return _with(point, i, rows.reshape(x.shape))


def _rounded(point: Point, _: Sequence[float], rng: random.Random) -> Point:
    i = _some(point, rng)
    return _with(point, i, point[i].round())


def _extreme(point: Point, _: Sequence[float], rng: random.Random) -> Point:
    """A power of ten, or a limit of the type, in one entry."""
    i = _some(point, rng)
    info = torch.finfo(point[i].dtype)
    power = 10.0 ** rng.choice((-30, -12, -6, 2, 3, 12, 30))
    value = rng.choice((power, -power, info.tiny, info.eps, info.max, -info.max))
    value = max(-info.max, min(info.max, value))
    return _with(point, i, _set(point[i], rng.randrange(point[i].numel()), value))


# A change that stands twice is drawn twice as often.
_CHANGES = (_entry, _entry, _fill, _equal, _equal, _copy, _row, _row, _rounded, _extreme)
