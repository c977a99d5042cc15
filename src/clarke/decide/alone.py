"""One custom `torch.autograd.Function` by itself: its backward against rates of its forward."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from clarke.decide.model import Culprit
from clarke.errors import OutOfTimeError
from clarke.numerics import (
    APPLIED_ALIKE,
    APPLIED_APART,
    APPLIED_ASIDE,
    APPLIED_JUMP,
    APPLIED_NEARNESS,
    APPLIED_RANGES,
    APPLIED_STEPS,
)
from clarke.steering.functions import Called

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.capture import Applied
    from clarke.deadline import Deadline

    Tensors = Mapping[int, torch.Tensor]


class Answer(Enum):
    """What running a Function by itself says of its backward."""

    DERIVATIVE = "is the derivative of its forward"
    OTHER = "is not the derivative of its forward"
    UNKNOWN = "cannot be compared with its forward"


@dataclass(frozen=True)
class Finding:
    """The answer on one Function, in words where it is not `DERIVATIVE`; with numbers, if any."""

    applied: Applied
    answer: Answer
    why: str = ""
    rates: str = ""

    @property
    def culprit(self) -> Culprit:
        """The Function, named."""
        return Culprit(self.applied.name, self.applied.location, self.why)


class Alone:
    """A Function with values of its own.

    Args:
        applied: Its record.
        values: The tensors of a replay in float64, by slot.

    Attributes:
        trouble: Why it cannot be looked at, in words; empty if it can.
    """

    def __init__(self, applied: Applied, values: Tensors) -> None:
        self.applied = applied
        self.trouble = ""
        self.inputs: dict[int, torch.Tensor] = {}
        self._called = Called(applied)
        for position, slot in applied.given.items():
            if slot not in values:
                self.trouble = "reads a tensor that its record does not hold"
                return
            given = values[slot].detach().clone()
            self._called.args[position] = given
            if given.is_floating_point():
                self.inputs[position] = given
        if not applied.outputs or not self.inputs:
            self.trouble = "returns nothing that its record shows"
            return
        try:
            found = self.value(self.inputs)
        except Exception as error:  # noqa: BLE001 - the user's code, on arguments of clarke's
            self.trouble = f"cannot be run again in float64 ({type(error).__name__}: {error})"
            return
        expected = [values.get(slot) for slot in applied.outputs.values()]
        for one, two in zip(found, expected, strict=True):
            if two is None or one.shape != two.shape or not _alike(one, two.detach()):
                self.trouble = (
                    "computes other values than the operations that clarke saw in its forward"
                )

    def _run(self, inputs: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
        return list(self._called.run(inputs).values())

    def value(self, inputs: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
        """What it returns; the arguments may be overwritten by it, so they are copies."""
        with torch.no_grad():
            found = self._run({i: x.clone() for i, x in inputs.items()})
            return [o.detach().to(torch.float64) for o in found]

    def gradient(self, weights: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """What its backward says, for given weights of its results."""
        with torch.enable_grad():
            leaves = {i: x.clone().requires_grad_() for i, x in self.inputs.items()}
            # It may overwrite them, which leaves do not allow.
            out = self._run({i: x.view_as(x) for i, x in leaves.items()})
            pairs = [(o, w) for o, w in zip(out, weights, strict=True) if o.requires_grad]
            grads = torch.autograd.grad(
                [o for o, _ in pairs],
                list(leaves.values()),
                [w.to(o.dtype) for o, w in pairs],
                materialize_grads=True,
            )
        return {i: g.detach() for i, g in zip(leaves, grads, strict=True)}


def hold(applied: Applied, values: Tensors, deadline: Deadline, *, aside: bool = False) -> Finding:
    """Hold the backward of one Function against rates of its forward, argument by argument.

    Args:
        applied: The Function.
        values: The tensors of a replay, by slot.
        deadline: When to give up.
        aside: Not at these values, but beside them.
    """
    alone = Alone(applied, values)
    if alone.trouble:
        return Finding(applied, Answer.UNKNOWN, alone.trouble)
    generator = torch.Generator().manual_seed(2)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, dtype=torch.float64, generator=generator)

    if aside:
        for position, x in alone.inputs.items():
            alone.inputs[position] = x + APPLIED_ASIDE * size_of(x) * draw(x)
    weights = [draw(o) for o in alone.value(alone.inputs)]
    try:
        grads = alone.gradient(weights)
    except Exception as error:  # noqa: BLE001 - the user's code, on arguments of clarke's
        why = (
            f"has a backward that cannot be run again in float64 ({type(error).__name__}: {error})"
        )
        return Finding(applied, Answer.UNKNOWN, why)
    unsure = ""
    for position, x in alone.inputs.items():
        direction = size_of(x) * draw(x)
        says = float((grads[position].to(torch.float64) * direction).sum())
        terms = float((grads[position].to(torch.float64) * direction).abs().sum())

        def along(
            t: float, position: int = position, x: torch.Tensor = x, d: torch.Tensor = direction
        ) -> list[torch.Tensor]:
            deadline.ask("running a custom Function beside the point")
            return alone.value({**alone.inputs, position: x + t * d})

        rate = _rate(along, weights)
        if rate is None:
            unsure = "has no rate of change here that values tell"
            continue
        found, room = rate
        apart = abs(found - says)
        if apart > APPLIED_APART * max(abs(found), terms) + room:
            rates = (
                f"along a random direction of argument {position} the value changes at a rate of "
                f"{found:.6g}, and backward says {says:.6g}"
            )
            why = f"its own backward is not the derivative of what its forward computes: {rates}"
            return Finding(applied, Answer.OTHER, why, rates)
        if not max(apart, room) <= APPLIED_APART * max(abs(found), terms):
            unsure = "changes here at a rate that values tell too roughly"
        elif apart > APPLIED_ALIKE * max(abs(found), terms) + room:
            unsure = "has a backward that is too near its derivative to be told from it"
    return Finding(applied, Answer.UNKNOWN if unsure else Answer.DERIVATIVE, unsure)


def _rate(
    along: Callable[[float], list[torch.Tensor]], weights: Sequence[torch.Tensor]
) -> tuple[float, float] | None:
    """The rate of a weighted sum of values along a ray, and its error; None if sides differ."""

    def total(parts: Sequence[torch.Tensor]) -> tuple[float, float]:
        terms = [(w * p) for w, p in zip(weights, parts, strict=True)]
        return (
            float(sum(float(t.sum()) for t in terms)),
            float(sum(float(t.abs().sum()) for t in terms)),
        )

    here, size = total(along(0.0))
    noise = torch.finfo(torch.float64).eps * max(size, torch.finfo(torch.float64).tiny)
    rates, bends = [], []
    try:
        for step in APPLIED_STEPS:
            ahead, back = total(along(step))[0], total(along(-step))[0]
            rates.append((ahead - back) / (2 * step))
            bends.append(abs(ahead - 2 * here + back) / step)
    except OutOfTimeError:
        raise
    except Exception:  # noqa: BLE001 - the user's code, on arguments of clarke's
        return None
    best: tuple[float, float, int] | None = None
    ratio = (APPLIED_STEPS[0] / APPLIED_STEPS[1]) ** 2
    finer = [(ratio * b - a) / (ratio - 1) for a, b in pairwise(rates)]
    for k in range(1, len(finer)):
        error = abs(finer[k] - finer[k - 1]) + 16 * noise / APPLIED_STEPS[k + 1]
        if error == error and (best is None or error < best[1]):  # noqa: PLR0124 - no NaN
            best = (finer[k], error, k)
    if best is None:
        return None
    rate, error, k = best
    # Where it bends, the two sides differ by less the nearer they are; at a kink they do not.
    if bends[k + 1] > 0.5 * bends[k - 1] and bends[k + 1] > APPLIED_APART * abs(rate) + error:
        return None
    return rate, 4 * error


def jump_of(applied: Applied, values: Tensors, deadline: Deadline) -> str:
    """Where the value jumps on a ray from the point, in words; empty if it does not.

    Halves a piece of the ray on and on, always keeping the half over which the value changes more:
    of a continuous function hardly anything is left.
    """
    alone = Alone(applied, values)
    generator = torch.Generator().manual_seed(3)
    rays = {
        i: size_of(x) * torch.randn(x.shape, dtype=torch.float64, generator=generator)
        for i, x in alone.inputs.items()
    }

    def at(t: float) -> list[torch.Tensor]:
        deadline.ask("looking for a jump of a custom Function")
        return alone.value({i: x + t * rays[i] for i, x in alone.inputs.items()})

    def apart(one: list[torch.Tensor], two: list[torch.Tensor]) -> float:
        gaps = [float((a - b).abs().max()) for a, b in zip(one, two, strict=True) if a.numel()]
        return max(gaps, default=0.0)

    try:
        for far in (sign * r for r in APPLIED_RANGES for sign in (1, -1)):
            low, high = 0.0, far
            below, above = at(low), at(high)
            whole = apart(below, above)
            while whole > 0 and abs(high - low) > APPLIED_NEARNESS * abs(far):
                middle = (low + high) / 2
                between = at(middle)
                if apart(below, between) >= apart(between, above):
                    high, above = middle, between
                else:
                    low, below = middle, between
            if whole > 0 and apart(below, above) > APPLIED_JUMP * whole:
                return f"jumps by {apart(below, above):.3g} beside the point"
    except OutOfTimeError:
        raise
    except Exception:  # noqa: BLE001 - the user's code, on arguments of clarke's
        return ""
    return ""


def size_of(tensor: torch.Tensor) -> float:
    """The scale on which a tensor's numbers are moved."""
    found = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    return found or 1.0


def _alike(one: torch.Tensor, two: torch.Tensor) -> bool:
    room = (
        APPLIED_ALIKE * float(torch.nan_to_num(two.abs(), 0.0, 0.0, 0.0).max())
        if two.numel()
        else 0
    )
    return bool((((one - two).abs() <= room) | (one == two) | (one.isnan() & two.isnan())).all())
