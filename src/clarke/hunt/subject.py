"""The function that is hunted, and what one recorded run at a point shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import all_finite
from clarke.check import check
from clarke.decide.disagree import name_nonfinite
from clarke.errors import InputError
from clarke.numerics import HUNT_LISTED
from clarke.prepare import prepared
from clarke.steering import Program, analyse
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clarke.decide.model import Culprit
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
        constants: Numbers that stand in the program.
        outer: Variables that are no inputs: parameters that the function closes over.
        broken: What made the gradient NaN or infinite, where it is.
    """

    sites: frozenset[Place]
    touched: frozenset[Place]
    features: frozenset[Any]
    constants: tuple[float, ...]
    outer: tuple[torch.Tensor, ...]
    broken: frozenset[Place] = frozenset()


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
        rows, left = rows_of(self.example), rows_of(point)
        given = [
            a[:left] if left != rows and _rows_like(a, rows) and id(a) not in fresh else a
            for a in self.arguments
        ]
        return tuple(fresh.get(id(a), a) for a in given), wrt

    @cached_property
    def varied(self) -> tuple[bool, ...]:
        """Which of the inputs that are moved are variables."""
        named = None if self.wrt is None else {id(w) for w in self.wrt}
        return tuple(x.requires_grad if named is None else id(x) in named for x in self.moved)

    def variables(self, point: Point) -> tuple[list[torch.Tensor], tuple[Any, ...]]:
        """The inputs that are variables, and all arguments, of a call at a point."""
        arguments, _ = self.call(point)
        new = {id(old): a for old, a in zip(self.arguments, arguments, strict=True)}
        chosen = zip(self.moved, self.varied, strict=True)
        return [new[id(x)] for x, varied in chosen if varied], arguments

    @cached_property
    def examples(self) -> tuple[Point, ...]:
        """The example, after its first row and its first two where the function takes them."""
        rows = rows_of(self.example)
        fewer = [
            tuple(x[:n].clone() if x.dim() else x for x in self.example)
            for n in (1, 2)
            if rows is not None and n < rows
        ]
        return (*(p for p in fewer if self.tries(p) is not None), self.example)

    def judge(self, point: Point, seconds: float) -> Report:
        """`check` at a point."""
        arguments, wrt = self.call(point)
        return check(self.function, arguments, wrt=wrt, seconds=seconds)

    @leaves_no_trace
    def look(self, point: Point) -> Look:
        """One recorded run at a point."""
        refuse_not_finite(point)
        arguments, wrt = self.call(point)
        with prepared(self.function, arguments, wrt) as run:
            analysis = analyse(run.trace, run.registry, run.deadline)
            sites = analysis.ordered()
            touched = [s for s in sites if s.touch.count]
            finite = all_finite(run.gradient)
            given = {id(a) for a in arguments}
            named = () if finite else name_nonfinite(Program(analysis, run.slots))
            return Look(
                frozenset(place_of(s) for s in sites),
                frozenset(place_of(s) for s in touched),
                frozenset(_features(touched)) | ({"nonfinite"} if not finite else set()),
                tuple(dict.fromkeys(_constants(analysis))),
                tuple(x for x in run.leaves if id(x) not in given),
                places(named),
            )

    def tries(self, point: Point) -> Look | None:
        """`look`, or None where the function does not take the point."""
        try:
            return self.look(point)
        except Exception:  # noqa: BLE001 - in whatever way it says so
            return None


def refuse_not_finite(point: Point) -> None:
    """Refuse infinity and NaN among the inputs.

    Raises:
        InputError: There is one.
    """
    if not all_finite(point):
        raise InputError("Not a point: an entry is not finite.")


def rows_of(point: Point) -> int | None:
    """How many rows all inputs have that have any; None where they differ."""
    sizes = {x.shape[0] for x in point if x.dim()}
    return sizes.pop() if len(sizes) == 1 else None


def _rows_like(value: Any, rows: int | None) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == rows


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


def places(culprits: Sequence[Culprit]) -> frozenset[Place]:
    """Where operations that are named stand."""
    return frozenset(
        Place(c.operation, c.location.file, c.location.line, c.location.module) for c in culprits
    )


def _features(touched: Sequence[Site]) -> Iterator[Any]:
    """Touched kinks with how many pieces meet there, and pairs of kinks of different operations.

    Of a pair it counts whether both are at one element: rows of a batch are much alike.
    """
    listed: list[tuple[int, set[int]]] = []
    for site in touched:
        touch = site.touch
        elements = touch.elements[: int(HUNT_LISTED)].tolist()
        sizes = torch.bincount(touch.owner, minlength=touch.count).tolist()
        yield from ((site.position, e, n) for e, n in zip(elements, sizes, strict=False))
        listed.append((site.position, set(elements)))
    for i, (first, its) in enumerate(listed):
        for second, others in listed[i + 1 :]:
            yield first, second, bool(its & others), its == others
    yield frozenset(position for position, _ in listed)


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
