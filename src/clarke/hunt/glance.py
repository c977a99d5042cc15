"""Whether a point is worth a recorded run and a verdict: some plain runs at it and beside it."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch.utils._python_dispatch import TorchDispatchMode

from clarke.hunt.subject import refuse_not_finite
from clarke.kinks import default_registry
from clarke.kinks.model import Call
from clarke.kinks.regions import RegionRule
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import HUNT_JUMP, HUNT_LIKE, HUNT_LISTED, HUNT_NEAR, HUNT_STEP
from clarke.prepare import saving_recorder
from clarke.rerun import plain
from clarke.undo import at_the_end
from clarke.world import World

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from clarke.hunt.subject import Point, Subject
    from clarke.kinks import Registry

_CLOSE = (
    0.0,
    1.0,
    -1.0,
)  # where roots, logarithms and inverse functions have their singular points
_COMPARED = 12  # entries that are compared with each other


@dataclass(frozen=True, eq=False)
class Glance:
    """What plain runs at a point and beside it show.

    Attributes:
        coincidences: By number of the operation: values at which it may have a kink, and equal
            ones. A recorded run says more, and takes ten times as long.
        finite: The gradient is finite.
        odd: It has to be judged: the gradient is not finite or no mixture of those sampled nearby,
            or the value is not finite although it is so nearby, or overflows.
        valued: So is the function's value.
    """

    coincidences: frozenset[Any]
    finite: bool
    odd: bool
    valued: bool = True

    @property
    def key(self) -> tuple[frozenset[int], bool, bool]:
        """Which operations are met, and whether gradient and value are finite."""
        return frozenset(c[0] for c in self.coincidences), self.finite, self.valued


class Glances:
    """Plain runs of a function; the user's world is put back after each.

    Args:
        subject: The function.
        outer: Variables that are no inputs.
    """

    def __init__(self, subject: Subject, outer: tuple[torch.Tensor, ...]) -> None:
        self._subject = subject
        self._outer = outer
        self._registry = default_registry()
        self._world = World()
        at_the_end(self._world.restore)
        for x in (*outer, *(a for a in subject.arguments if isinstance(a, torch.Tensor))):
            self._world.save_tensor(x)
        arguments, _ = subject.call(subject.example)
        try:  # modules are remembered when they are met
            with torch.enable_grad(), saving_recorder(self._world, self._registry):
                subject.function(*arguments)
        finally:
            self._world.restore()

    def glance(self, point: Point, skip: Collection[Any] = ()) -> Glance | None:
        """A glance at a point; None where the function does not take it.

        Args:
            point: Where.
            skip: Keys of glances at which nobody asks whether the gradient is odd.
        """
        try:
            refuse_not_finite(point)
            watch = _Watch(self._registry)
            value, own = self._run(point, [x.detach() for x in self._outer], watch)
        except Exception:  # noqa: BLE001 - in whatever way it says so
            return None
        finite, valued = bool(np.isfinite(own).all()), math.isfinite(value)
        found = Glance(frozenset(watch.found), finite, odd=False, valued=valued)
        if found.key in skip:
            return found
        if not valued:
            odd = not finite and (self._is_hole(point) or self._overflows(point))
        else:
            # Off all kinks a gradient differs from those beside by curvature alone.
            odd = not finite or (bool(watch.found) and self._is_odd(point, value, own))
        return replace(found, odd=odd)

    def overflows(self, point: Point) -> bool:
        """Whether what is not finite is so in a whole neighbourhood, too: by overflow."""
        return not self._is_hole(point)

    def _is_hole(self, point: Point) -> bool:
        """Whether value and gradient are finite at points beside one at which they are not."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(int(HUNT_NEAR)):
            steps, further = self._steps(point, generator)
            for sign in (1, -1):
                try:
                    value, beside = self._moved(point, steps, further, sign)
                except Exception:  # noqa: BLE001, S112 - the function does not take that point
                    continue
                if math.isfinite(value) and np.isfinite(beside).all():
                    return True
        return False

    def _overflows(self, point: Point) -> bool:
        """Whether the first value that is not finite is infinite; NaN is outside of a domain."""
        first = _First()
        with contextlib.suppress(Exception):
            self._run(point, [x.detach() for x in self._outer], first)
        return first.infinite

    def _run(
        self, point: Point, outer: list[torch.Tensor], watch: TorchDispatchMode | None = None
    ) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient."""
        variables, arguments = self._subject.variables(point)
        before = [x.data for x in self._outer]
        try:
            for x, moved in zip(self._outer, outer, strict=True):
                x.data = moved
            with torch.enable_grad():
                if watch is None:
                    output = self._subject.function(*arguments)
                else:
                    with watch:
                        output = self._subject.function(*arguments)
                leaves = [*variables, *self._outer]
                grads = torch.autograd.grad(output, leaves, materialize_grads=True)
            flat = [plain(g).reshape(-1).double().numpy() for g in grads]
            return float(output.detach()), np.concatenate(flat)
        finally:
            for x, data in zip(self._outer, before, strict=True):
                x.data = data
            self._world.restore()

    def _is_odd(self, point: Point, value: float, own: NDArray[np.float64]) -> bool:
        """Whether the gradient is no mixture of those beside, so that a proof has to tell."""
        generator = torch.Generator().manual_seed(0)
        samples: list[NDArray[np.float64]] = []
        for tried in range(1, int(HUNT_NEAR) + 1):
            steps, further = self._steps(point, generator)
            try:
                there, beside = self._moved(point, steps, further, 1)
                if tried == 1:  # a step, on whichever side
                    back, _ = self._moved(point, steps, further, -1)
                    jump = max(abs(there - value), abs(back - value))
                    if jump > HUNT_JUMP * max(1.0, abs(value)):
                        return True
            except Exception:  # noqa: BLE001, S112 - the function does not take that point
                continue
            if not np.isfinite(beside).all():
                continue
            if np.allclose(own, beside, rtol=HUNT_LIKE, atol=HUNT_LIKE):
                return False
            samples.append(beside)
            if tried & (tried - 1) == 0 and _is_mixture(own, np.stack(samples)):
                return False
        return True

    def _steps(
        self, point: Point, generator: torch.Generator
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Small steps of the variables among the inputs, and of the others."""
        own = [
            _step(x, generator) if v else torch.zeros_like(x)
            for x, v in zip(point, self._subject.varied, strict=True)
        ]
        return own, [_step(x.detach(), generator) for x in self._outer]

    def _moved(
        self, point: Point, steps: list[torch.Tensor], further: list[torch.Tensor], sign: int
    ) -> tuple[float, NDArray[np.float64]]:
        return self._run(
            tuple(x + sign * s for x, s in zip(point, steps, strict=True)),
            [x.detach() + sign * s for x, s in zip(self._outer, further, strict=True)],
        )


def _step(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    size: float = torch.finfo(x.dtype).eps ** float(HUNT_STEP)
    return x.abs().clamp(min=1) * noise * size


def _is_mixture(own: NDArray[np.float64], samples: NDArray[np.float64]) -> bool:
    """Whether a gradient is a convex combination of others, up to `HUNT_LIKE` in each entry."""
    scale = np.maximum(np.abs(samples).max(0), np.abs(own)).clip(min=1)
    columns = np.vstack([(samples / scale).T, np.ones(len(samples))])
    try:
        weights, _ = nnls(columns, np.append(own / scale, 1.0))
    except RuntimeError:  # too many iterations
        return False
    return bool(np.abs(columns @ weights - np.append(own / scale, 1.0)).max() <= HUNT_LIKE)


class _First(TorchDispatchMode):
    """Sees whether the first value that is not finite is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.infinite = False
        self._over = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if not self._over and isinstance(made, torch.Tensor) and made.is_floating_point():
            seen = made.detach()
            self._over = not bool(torch.isfinite(seen).all())
            self.infinite = self._over and not bool(torch.isnan(seen).any())
        return made


class _Watch(TorchDispatchMode):
    """Sees the arguments of operations that may have kinks."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.found: set[Any] = set()
        self._registry = registry
        self._count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        known = self._registry.known(func)
        if known.rule is not None or known.lowering is not None:
            try:
                found = list(_coincidences(known.rule, Call(func, args, kwargs)))
            except Exception:  # noqa: BLE001 - it says where to look, no more
                found = [("unclear", func)]
            self.found.update((self._count, *f) for f in found)
        self._count += 1
        return func(*args, **kwargs)


def _coincidences(rule: Any, call: Call) -> Iterator[tuple[Any, ...]]:
    """Elements at which an operation's pieces may meet."""
    if isinstance(rule, RegionRule):
        for number, gap in enumerate(rule.split(call)):
            yield from (("split", number, i) for i in _zeros(gap))
        return
    if isinstance(rule, ComparisonRule):
        yield from (("split", 0, i) for i in _zeros(torch.eq(*call.args[:2]).logical_not()))
        return
    tensors = [a for a in call.args if isinstance(a, torch.Tensor) and a.is_floating_point()]
    for number, x in enumerate(tensors):
        values = x.detach().reshape(-1)[: int(HUNT_LISTED)].tolist()
        yield from ((v, number, i) for i, v in enumerate(values) if v in _CLOSE)
        few = values[:_COMPARED]
        yield from (
            ("equal", number, i, j) for i, v in enumerate(few) for j in range(i) if few[j] == v
        )


def _zeros(gap: torch.Tensor) -> list[int]:
    gap = gap.detach()
    if int(gap.count_nonzero()) == gap.numel():
        return []
    found: list[int] = (gap.reshape(-1) == 0).nonzero().squeeze(1)[: int(HUNT_LISTED)].tolist()
    return found
