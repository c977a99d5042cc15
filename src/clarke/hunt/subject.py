"""The function that is hunted, and what one recorded run at a point shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.check import check
from clarke.errors import ClarkeError
from clarke.numerics import HUNT_LIKE, HUNT_LISTED, HUNT_NEAR, HUNT_STEP
from clarke.prepare import prepared
from clarke.steering import analyse
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clarke.prepare import Prepared
    from clarke.report import Report
    from clarke.steering import Analysis, Site

Point = tuple[torch.Tensor, ...]


@dataclass(frozen=True, order=True)
class Place:
    """An operation with kinks, where it stands in the program.

    Attributes:
        operation: Its name, such as ``clamp``.
        file: The user's source file.
        line: The line in it.
        module: Path of the module that ran it, "" outside of modules.
    """

    operation: str
    file: str
    line: int
    module: str = ""

    def __str__(self) -> str:
        name = self.file.replace("\\", "/").rsplit("/", 1)[-1]
        return f"{self.operation} at {name}:{self.line}"


@dataclass(frozen=True, eq=False)
class Look:
    """What one recorded run shows.

    Attributes:
        sites: The operations with kinks.
        touched: Those whose kinks are touched.
        features: Touched kinks, and pairs of them: what coverage counts.
        valued: The function's value is finite.
        finite: So is the gradient.
        odd: The gradient is unlike all that were sampled nearby, so that it has to be judged.
        constants: Numbers that stand in the program.
    """

    sites: frozenset[Place]
    touched: frozenset[Place]
    features: frozenset[Any]
    valued: bool
    finite: bool
    odd: bool
    constants: tuple[float, ...]


class Subject:
    """A function with the tensors that a hunt may change: its floating point inputs.

    Args:
        function: The user's.
        arguments: Its arguments; those that require gradients are the variables.
        wrt: As of `check`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        wrt: Sequence[torch.Tensor] | None,
    ) -> None:
        self.function = function
        self.arguments = tuple(arguments)
        self.wrt = wrt
        moved = [a for a in self.arguments if is_float(a)]
        self.moved = tuple({id(a): a for a in moved}.values())
        self.example: Point = tuple(a.detach().clone() for a in self.moved)

    def call(self, point: Point, *, vary: bool = False) -> tuple[tuple[Any, ...], Any]:
        """Arguments and `wrt` of a call at a point.

        Args:
            point: Values of the inputs that are moved.
            vary: Let all of them require gradients.
        """
        fresh = {
            id(old): new.detach().clone().requires_grad_(vary or old.requires_grad)
            for old, new in zip(self.moved, point, strict=True)
        }
        wrt = None if self.wrt is None or vary else [fresh.get(id(w), w) for w in self.wrt]
        return tuple(fresh.get(id(a), a) for a in self.arguments), wrt

    def judge(self, point: Point, seconds: float) -> Report:
        """`check` at a point."""
        arguments, wrt = self.call(point)
        return check(self.function, arguments, wrt=wrt, seconds=seconds)

    @leaves_no_trace
    def look(self, point: Point) -> Look:
        """One recorded run at a point, and gradients beside it."""
        arguments, wrt = self.call(point)
        with prepared(self.function, arguments, wrt) as run:
            analysis = analyse(run.trace, run.registry, run.deadline)
            sites = analysis.ordered()
            touched = [s for s in sites if s.touch.count]
            finite = all(bool(torch.isfinite(g).all()) for g in run.gradient)
            return Look(
                frozenset(place_of(s) for s in sites),
                frozenset(place_of(s) for s in touched),
                frozenset(_features(touched)) | ({"nonfinite"} if not finite else set()),
                math.isfinite(run.value([x.detach() for x in run.leaves])),
                finite,
                bool(touched) and finite and _is_odd(run),
                tuple(dict.fromkeys(_constants(analysis))),
            )

    def tries(self, point: Point) -> Look | None:
        """`look`, or None where the function does not take the point."""
        try:
            return self.look(point)
        except Exception:  # noqa: BLE001 - in whatever way it says so
            return None


def is_float(value: Any) -> bool:
    """Whether it is a dense tensor of real floating point numbers that may be changed."""
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.layout is torch.strided
        and value.is_leaf
    )


def place_of(site: Site) -> Place:
    """Where a site stands."""
    op = site.touch.op
    return Place(op.shown, op.location.file, op.location.line, op.location.module)


def _features(touched: Sequence[Site]) -> Iterator[Any]:
    """Touched kinks with what meets there, and pairs of kinks of different operations."""
    listed: list[tuple[int, int]] = []
    for site in touched:
        touch = site.touch
        for k, element in enumerate(touch.elements[: int(HUNT_LISTED)].tolist()):
            members = tuple(touch.members[touch.owner == k][: int(HUNT_LISTED)].tolist())
            yield site.position, element, members
            listed.append((site.position, element))
    listed = listed[: int(HUNT_LISTED) // 4]
    for i, first in enumerate(listed):
        yield from ((first, second) for second in listed[i + 1 :])
    yield frozenset(site.position for site in touched)


def _is_odd(run: Prepared) -> bool:
    """Whether the gradient is unlike those at points beside, so that only a proof can tell."""
    generator = torch.Generator().manual_seed(0)
    here = [x.detach() for x in run.leaves]
    for _ in range(int(HUNT_NEAR)):
        moved = []
        for x in here:
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
            step = torch.finfo(x.dtype).eps ** float(HUNT_STEP)
            moved.append(x + step * x.abs().clamp(min=1) * noise)
        try:
            beside = run.beside(moved)
        except ClarkeError:
            continue
        pairs = zip(run.gradient, beside, strict=True)
        if all(torch.allclose(g, b, rtol=HUNT_LIKE, atol=HUNT_LIKE) for g, b in pairs):
            return False
    return True


def _constants(analysis: Analysis) -> Iterator[float]:
    """Numbers among the arguments of operations, and entries of small constant tensors."""
    for op in analysis.trace.ops:
        for value in (*op.args, *op.kwargs.values()):
            numbers = value if isinstance(value, (list, tuple)) else (value,)
            for n in numbers:
                if isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n):
                    yield float(n)
    for external in analysis.trace.externals.values():
        tensor = external.tensor
        if not tensor.requires_grad and tensor.numel() <= 4 and tensor.is_floating_point():
            yield from (v for v in tensor.detach().reshape(-1).tolist() if math.isfinite(v))
