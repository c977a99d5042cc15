"""The gradient of a compiled program, held against that of the function that was compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from clarke.capture import all_finite
from clarke.decide.model import Decision
from clarke.decide.rounding import Rounding
from clarke.decide.tolerance import coarsest_epsilon, peak, within
from clarke.decide.verification import ad_weights, own_gradient
from clarke.errors import ReplayError
from clarke.numerics import (
    COMPILED_LIKE,
    COMPILED_NEAR,
    COMPILED_ROUNDED,
    COMPILED_SIDES,
    POSITIVE,
    ROUNDING_MARGIN,
)
from clarke.steering import Errors, Pieces, Program, analyse, gradient_of
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import Trace
    from clarke.deadline import Deadline
    from clarke.kinks import Registry

_HELD = (
    "Judged is the gradient of the program that torch.compile has made, against the function as it "
    "was written."
)
_DRAWS = (
    "The function draws random numbers, and the compiled program may draw others, so that its "
    "gradient may be that of another draw. Compile with torch._inductor.config.fallback_random = "
    "True, or leave the random part out."
)


_CHANGES = (
    "Run again uncompiled, the function returns another gradient than before, so that what the "
    "compiled program returns tells nothing of torch.compile. Let it depend on nothing that its "
    "own runs change."
)


@dataclass(frozen=True)
class Compiled:
    """A compiled program's gradient beside that of the function as it was written.

    Attributes:
        gradient: Of the compiled program.
        written: Of the function as it was written.
        like: It is the other one up to roundings.
        rounded: It may be the other one, if roundings are large.
        draws: The function draws random numbers.
        difference: How far they are apart, in words.
        broken: It holds NaN or infinity, and the other one does not.
    """

    gradient: tuple[torch.Tensor, ...]
    written: tuple[torch.Tensor, ...]
    like: bool
    rounded: bool
    draws: bool
    difference: str
    broken: bool

    @property
    def note(self) -> str:
        """What is judged, and how far it is from what was written."""
        return _HELD + self.difference

    def refusal(self, again: Callable[[], tuple[torch.Tensor, ...]]) -> Decision | None:
        """What is to be said without looking at the set.

        Args:
            again: The gradient of one more run of the function as it was written.
        """
        if self.like:
            return None
        if self.draws:
            return Decision(Verdict.UNDECIDED, _DRAWS, notes=(self.note,))
        # Twice: what alternates would pass once.
        if not all(all(map(_near, again(), self.written)) for _ in range(2)):
            return Decision(Verdict.UNDECIDED, _CHANGES)
        return None

    def told(self, found: Decision) -> Decision:
        """A verdict with what is to be said of the compiled program.

        Args:
            found: The verdict on `gradient`, or on `written` where `broken`.
        """
        found = replace(found, notes=(*found.notes, self.note))
        if self.broken:
            if found.verdict not in POSITIVE:
                return replace(
                    found,
                    verdict=Verdict.UNDECIDED,
                    reason="The compiled program returned NaN or infinity where the function as it "
                    f"was written does not, and of that: {found.reason}",
                    certificate=None,
                )
            return replace(
                found,
                verdict=Verdict.NONFINITE,
                reason="The compiled program returned NaN or infinity, and the function as it was "
                "written a right gradient.",
                element=self.written,
                certificate=None,
            )
        if found.verdict is Verdict.NOT_CLARKE and self.rounded and not self.like:
            return replace(
                found,
                verdict=Verdict.UNDECIDED,
                reason="The compiled program's gradient lies outside of the set, but so near to "
                "that of the function as it was written that rounding may have made the "
                "difference. Run the program in float64 to tell.",
                certificate=None,
                element=None,
            )
        return found


def compare(
    trace: Trace,
    written: tuple[torch.Tensor, ...],
    value: float,
    compiled: tuple[torch.Tensor, ...],
    computed: float,
    *,
    draws: bool,
) -> Compiled:
    """Hold a compiled program's gradient and value against those of the function as written."""
    spacing = coarsest_epsilon(trace)
    largest = max(peak(written), peak(compiled))
    gap, where = _furthest(compiled, written)
    broken = not _finite(compiled) and _finite(written)
    equal = all(map(_same, compiled, written))
    like = equal or (not broken and gap <= COMPILED_LIKE * spacing * largest)
    rounded = like or (not broken and gap <= spacing**COMPILED_ROUNDED * largest)
    told = ""
    if not equal:
        kind = "by rounding: " if like else ""
        told += f" The two gradients differ {kind}by up to {gap:.3g}{where}."
    room = spacing**COMPILED_ROUNDED * max(abs(value), abs(computed))
    both = computed == value or (math.isnan(computed) and math.isnan(value))
    if not (both or abs(computed - value) <= room):
        told += f" It computes {computed:.6g}, and the function as written {value:.6g}."
    return Compiled(compiled, written, like, rounded, draws, told, broken)


class Uncompiled:
    """The function as it was written, from a record of it, run again.

    Args:
        trace: The record.
        registry: The rules.
        variables: External slots of the variables.
        deadline: When to give up.
    """

    def __init__(
        self, trace: Trace, registry: Registry, variables: Sequence[int], deadline: Deadline
    ) -> None:
        self._trace = trace
        self._program = Program(analyse(trace, registry, deadline), variables, deadline=deadline)

    def in_own_type(
        self, point: Sequence[torch.Tensor] | None = None
    ) -> tuple[tuple[torch.Tensor, ...], float]:
        """AD's gradient and the value: in float32 if all of the program is, else in float64.

        Args:
            point: Values of the variables; None for the recorded ones. All kinks stay as they are.
        """
        program = self._program
        if self._single:
            program = Program(program.analysis, program.variables, torch.float32, program.deadline)
        run = program.run(point, pieces=Pieces.HELD)
        return gradient_of(run, program), float(run.output.detach())

    def is_like(self, compiled: Sequence[torch.Tensor], written: Sequence[torch.Tensor]) -> bool:
        """Whether a compiled program's gradient is AD's but for roundings, entry by entry.

        What roundings do to an entry is what it does when the variables are rounded otherwise,
        which in every layer moves all that is computed from there. Where that is not enough,
        `Rounding` tells, which takes longer.

        Args:
            compiled: Its gradient.
            written: What `in_own_type` returned.
        """
        spacing = coarsest_epsilon(self._trace)
        gaps = [_gaps(a, b) for a, b in zip(compiled, written, strict=True)]
        rooms = [
            COMPILED_LIKE * spacing * torch.maximum(a.abs(), b.abs())
            for a, b in zip(compiled, written, strict=True)
        ]
        for seed in range(int(COMPILED_SIDES)):
            if all(bool((g <= r).all()) for g, r in zip(gaps, rooms, strict=True)):
                return True
            there, _ = self.in_own_type(self._rounded_otherwise(seed, spacing))
            rooms = [
                torch.maximum(r, ROUNDING_MARGIN * (t - b).abs())
                for r, t, b in zip(rooms, there, written, strict=True)
            ]
        return self._rounding.covers(compiled)

    def _rounded_otherwise(self, seed: int, spacing: float) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        moved = []
        for p in self._program.point:
            share = torch.rand(p.shape, generator=generator, dtype=p.dtype) * 2 - 1
            moved.append(p * (1 + spacing * share.to(p.device)))
        return moved

    @cached_property
    def _single(self) -> bool:
        kinds = {d for d in self._trace.slot_dtypes.values() if d.is_floating_point}
        return kinds == {torch.float32}

    def is_near_kinks(self) -> bool:
        """Whether roundings alone may put the program on other sides of kinks than it stands on."""
        bounds = tuple(COMPILED_NEAR * b for b in self._rounding.bounds)
        for seed in range(int(COMPILED_SIDES)):
            errors = Errors(seed, float(COMPILED_NEAR))
            try:
                run = self._program.run(pieces=Pieces.NATURAL, errors=errors)
            except ReplayError:
                return True
            if not within(gradient_of(run, self._program), self._own, bounds):
                return True
        return False

    @cached_property
    def _own(self) -> tuple[torch.Tensor, ...]:
        return own_gradient(self._program)

    @cached_property
    def _rounding(self) -> Rounding:
        return Rounding(self._program, self._own, weights=ad_weights(self._program))


def _finite(tensors: Sequence[torch.Tensor]) -> bool:
    return all_finite(tensors)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(torch.isnan(a), torch.isnan(b))) and torch.equal(
        torch.nan_to_num(a), torch.nan_to_num(b)
    )


def _near(a: torch.Tensor, b: torch.Tensor) -> bool:
    room = float(COMPILED_LIKE) * torch.finfo(a.dtype).eps * max(peak((a,)), peak((b,)))
    return _same(a, b) or bool(((a - b).abs() <= room).all())


def _furthest(
    compiled: Sequence[torch.Tensor], written: Sequence[torch.Tensor]
) -> tuple[float, str]:
    """The largest difference of two gradients, and where it is."""
    gaps = [(_gap(a, b), i) for i, (a, b) in enumerate(zip(compiled, written, strict=True))]
    worst, number = max(gaps, default=(0.0, 0), key=lambda g: g[0])
    if not worst > 0:
        return 0.0, ""
    one, two = compiled[number], written[number]
    at = int(_gaps(one, two).reshape(-1).argmax())
    place = [int(k) for k in torch.unravel_index(torch.tensor(at), one.shape)]
    found, beside = (float(t.reshape(-1)[at]) for t in (one, two))
    return worst, (
        f" in variable {number} at {place}: {found:.6g} compiled, {beside:.6g} as written"
    )


def _gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(_gaps(a, b).max()) if a.numel() and not torch.equal(a, b) else 0.0


def _gaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How far the entries are apart, infinite where one of them alone is not finite."""
    gaps = torch.sub(a.to(b.dtype), b).abs_()
    if bool(torch.isfinite(gaps).all()):
        return gaps
    return torch.where(torch.eq(a, b), 0.0, gaps).nan_to_num(nan=torch.inf)
