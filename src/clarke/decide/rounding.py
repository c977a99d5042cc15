"""How far rounding alone can move each entry of a gradient.

A relative tolerance cannot tell: an entry whose true value vanishes (every bias in front of
BatchNorm) holds nothing but rounding, and one of size 1 beside another of 1e8 holds none of the
other's. So the selection's gradient is computed a few times more with random errors of the size of
roundings in all values and adjoints (`clarke.steering.noise`), and a multiple of the largest change
of an entry bounds what rounding can do to it. An honest difference that the first few samples do
not cover, by chance, is covered by the next.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from clarke.capture import all_finite
from clarke.decide.tolerance import peak
from clarke.errors import ReplayError
from clarke.numerics import (
    DROWNED,
    ERROR_SIZES,
    MOST_SAMPLES,
    ONE_SAMPLE,
    OWN_ERROR_SIZES,
    ROUNDING_MARGIN,
    SAME_FORMULA,
    SAMPLES,
    SLIGHT,
    SPACINGS,
    TOO_WIDE,
    UNIT,
)
from clarke.steering import (
    Errors,
    Program,
    coarsest_unit,
    gradient_of,
    natural_gradient,
    selected_gradient,
    unit_roundoff,
)
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clarke.steering import Run

    Tensors = tuple[torch.Tensor, ...]

_DOUBLE_SEEDS = 64, 65
_POINT_SEEDS = 66, 67, 68
_MANY_SIGNS = 24  # where it counts that none of some terms cancel
_SIGNS = 4  # gradients with random signs: half of all pairs of equal terms agree in one of two


def spacings(values: Sequence[torch.Tensor], dtypes: Sequence[torch.dtype]) -> Tensors:
    """The least that rounding does to entries: a few spacings of the type that holds them."""
    return tuple(
        2 * SPACINGS * unit_roundoff(d) * v.detach().to(torch.float64).abs()
        for v, d in zip(values, dtypes, strict=True)
    )


class Rounding:
    """What rounding can do to the gradient of one selection.

    Args:
        program: The program, replayed in float64.
        gradient: The selection's gradient there.
        choices: The selection; AD's where silent.
        weights: Mixtures in place of choices.
        double: Only what float64 does to it, not the program's own types.
    """

    def __init__(
        self,
        program: Program,
        gradient: Sequence[torch.Tensor],
        choices: Mapping[int, torch.Tensor] | None = None,
        weights: Mapping[int, torch.Tensor] | None = None,
        *,
        double: bool = False,
    ) -> None:
        self._program = held = with_cones(program)
        cones = {p for p, site in held.analysis.sites.items() if site.rule.by_weights}
        if held is program:  # its selections know these norms
            cones = set()
        self._choices, self._weights = (
            None if part is None else {p: v for p, v in part.items() if p not in cones}
            for part in (choices, weights)
        )
        self._double = double
        self._gradient = tuple(g.detach().to(torch.float64) for g in gradient)
        trace = program.analysis.trace
        kinds = {d for d in trace.slot_dtypes.values() if d.is_floating_point or d.is_complex}
        wide = {torch.float64, torch.complex128}
        # In one type: errors of the size of its roundings. float64 cannot show its own.
        self._modes = [True] if double or kinds <= wide else [False, True][: 1 + bool(kinds & wide)]
        types = [trace.slot_dtypes.get(s, torch.float64) for s in program.variables]
        if double:
            types = [torch.float64] * len(types)
        # A formula that gives NaN at the point has no roundings that could be granted.
        finite = tuple(torch.nan_to_num(g, 0.0, 0.0, 0.0) for g in self._gradient)
        self._least = self._spacings = spacings(finite, types)
        self._largest = tuple(torch.zeros_like(g) for g in self._gradient)
        self._along = [0.0] * len(self._gradient)
        self._signed: dict[int, tuple[int, Tensors]] = {}
        self._count = 0
        self._formula = False  # what made the gradient in its own type gives this one in float64
        self.failed = False

    @property
    def bounds(self) -> Tensors:
        """For each entry, the largest error that rounding may have left in it."""
        while self._count < SAMPLES and not self.failed:
            self._sample()
        return self.so_far

    @property
    def so_far(self) -> Tensors:
        """The bounds that follow from the samples taken so far: at most `bounds`."""
        return tuple(
            torch.maximum(ROUNDING_MARGIN * most, least)
            for most, least in zip(self._largest, self._least, strict=True)
        )

    @property
    def most(self) -> Tensors:
        """The largest bounds that `covers` may come to: what a certificate may grant."""
        while self._count < MOST_SAMPLES and not self.failed:
            self._sample()
        return self.bounds

    def covers(self, other: Sequence[torch.Tensor]) -> bool:
        """Whether another gradient differs from this one by no more than rounding, anywhere."""
        gaps = tuple(
            (o.detach().to(torch.float64) - g).abs()
            for o, g in zip(other, self._gradient, strict=True)
        )
        # A Function is run again, which its author may notice, only where samples may be too few.
        few = sum(g.numel() for g in self._gradient) < ONE_SAMPLE
        first = int(few and bool(self._program.analysis.trace.applied))
        while self._count < SAMPLES and not self.failed:
            if _within(gaps, self.so_far):
                return True  # more samples only widen a bound
            if self._count == first and self._is_its_own(other):
                self._least = tuple(map(torch.maximum, self._least, gaps))
                self._formula = True
                return True
            self._sample()
        left = float("inf")
        while not _within(gaps, self.bounds):
            found = max(
                float((g / b).nan_to_num(torch.inf).where(g > b, 0.0).max()) if g.numel() else 0.0
                for g, b in zip(gaps, self.bounds, strict=True)
            )
            if self._count >= MOST_SAMPLES or self.failed or found > ROUNDING_MARGIN * left:
                return False
            left = min(left, found)
            self._sample()
        return True

    def terms(self, count: int) -> Iterator[Tensors]:
        """For each entry, its size if the terms that add up to it had signs at random.

        With more and more signs, up to a number of them: each only adds to it, so that whoever
        asks stops as soon as it is enough.
        """
        seen, found = self._signed.get(count, (0, tuple(g.abs() for g in self._gradient)))
        yield found
        run: Run | None = None  # one for all: signs are turned on the way back
        for seed in range(seen, count):
            run = run or self._run(Errors(seed, signs=True))
            turned = None if run is None else self._gradient_of(run, again=seed + 1 < count)
            if turned is not None:
                found = tuple(torch.maximum(f, t.abs()) for f, t in zip(found, turned, strict=True))
            self._signed[count] = seed + 1, found
            yield found

    def vague(self, other: Sequence[torch.Tensor]) -> bool:
        """Whether agreement entry by entry with another gradient proves little.

        Either what rounding does to a variable's gradient is of the size of its terms. Or the two
        differ by a factor that rounding does not explain: errors of many entries cancel in their
        sum, and a part of the gradient itself does not.
        """
        if self._formula or self._is_run_again(other):
            return False
        if not self._count:
            self._sample()
        for number in range(len(self._gradient)):
            # One sample tells where all is far from it; more of them say it surely.
            if self._is_vague(number, other[number], ROUNDING_MARGIN):
                _ = self.bounds
                if self._is_vague(number, other[number]):
                    return True
        return False

    def _is_vague(self, number: int, other: torch.Tensor, factor: float = 1.0) -> bool:
        """The same of one variable, if samples underestimate noise by a factor."""
        g = self._gradient[number]
        noise = float(torch.linalg.vector_norm(self._largest[number])) * factor
        if torch.equal(other.detach().to(torch.float64), g):
            return False  # it agrees without any tolerance
        size = float(torch.linalg.vector_norm(g))
        off = abs(float(((other.detach().to(torch.float64) - g) * g).sum()))
        room = max(
            ROUNDING_MARGIN * self._along[number], float((self._least[number] * g.abs()).sum())
        )
        if size > 0 and off > room:
            return True
        if not bool((self.so_far[number] * factor > TOO_WIDE * g.abs()).any()):
            return False
        return noise > TOO_WIDE * size and all(
            noise > TOO_WIDE * float(torch.linalg.vector_norm(r[number]))
            for r in self.terms(_SIGNS)
        )

    def drowned(self, other: Sequence[torch.Tensor]) -> bool:
        """Whether another gradient is noise in some entry, whatever made it.

        Either it is apart from this one by a good part of the entry's terms, or roundings of
        float64, in which both are told, already move it by that: ``(exp(x) - 1) / x`` at 1e-15.
        """
        if self._is_noise(_gaps(other, self._gradient), self._unit):
            return True
        if not self._count:
            self._sample()
        kinds = {
            d for d in self._program.analysis.trace.slot_dtypes.values() if d.is_floating_point
        }
        share = UNIT / min((unit_roundoff(d) for d in kinds), default=UNIT)
        wide = [ROUNDING_MARGIN * share * most for most in self._largest]
        if not self.failed and not self._is_noise(wide, UNIT):
            return False  # errors of the program's own types, made as small as those of float64
        gaps = [torch.zeros_like(g) for g in self._gradient]
        for seed in _DOUBLE_SEEDS:
            moved = self._moved(Errors(seed, ERROR_SIZES[-1], double=True))
            if moved is not None:
                noise = [a / ERROR_SIZES[-1] for a in _gaps(moved, self._gradient)]
                gaps = [torch.maximum(a, b) for a, b in zip(gaps, noise, strict=True)]
        # A zero that comes out twice, in the program's types and in float64, is one by structure.
        gaps = [
            torch.where((o.detach() == 0).to(g.device) & (g == 0), 0.0, a)
            for a, o, g in zip(gaps, other, self._gradient, strict=True)
        ]
        return self._is_noise(gaps, UNIT)

    def slight(self, other: Sequence[torch.Tensor]) -> bool:
        """Whether a difference is small beside the largest terms of any entry."""
        most = max((float(a.max()) for a in _gaps(other, self._gradient) if a.numel()), default=0.0)
        return any(
            most <= SLIGHT * max((float(t.max()) for t in sizes if t.numel()), default=0.0)
            for sizes in self.terms(_SIGNS)
        )

    def strays(self, one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
        """Whether two gradients are apart by a good part of some entry's terms."""
        return self._is_noise(_gaps(one, other), self._unit)

    @property
    def _unit(self) -> float:
        """The largest rounding of the program's types."""
        return coarsest_unit(self._program.analysis.recorded)

    def _is_noise(self, gaps: Sequence[torch.Tensor], unit: float) -> bool:
        trace = self._program.analysis.trace
        kinds = {d for d in trace.slot_dtypes.values() if d.is_floating_point}
        if not kinds <= {torch.float32, torch.float64}:
            return False  # of half precision `vague` says it
        # What underflows on the way is lost as it should be.
        lost = max(torch.finfo(d).tiny for d in kinds or {torch.float64}) ** 0.5
        gaps = [torch.where(a > lost, a, 0.0) for a in gaps]
        if not any(
            bool((a > TOO_WIDE * g.abs()).any()) for a, g in zip(gaps, self._gradient, strict=True)
        ):
            return False
        largest = peak(self._gradient)
        part = DROWNED * unit**0.5
        drowned: list[torch.Tensor] = []
        for terms in self.terms(_MANY_SIGNS):
            drowned = [a > part * t.clamp(min=largest) for a, t in zip(gaps, terms, strict=True)]
            if not any(bool(d.any()) for d in drowned):
                return False
        return any(
            bool((d & (a > b)).any())
            for d, a, b in zip(drowned, gaps, self._nearby_changes, strict=True)
        )

    @cached_property
    def _nearby_changes(self) -> Tensors:
        """For each entry, how far it moves when the point does, by roundings of its own type.

        A difference of two equal values has no digit right, and neither has its gradient; yet a
        square of it is as small as that. What some point that rounds to this one has for its
        gradient is no noise, wherever digits were lost on the way to it.
        """
        # What its own formula makes of the entry is granted as rounding, and may be all noise.
        trace, found = self._program.analysis.trace, self._spacings
        for seed in _POINT_SEEDS:
            generator = torch.Generator().manual_seed(seed)
            moved = []
            for slot, p in zip(self._program.variables, self._program.point, strict=True):
                unit = unit_roundoff(trace.slot_dtypes.get(slot, torch.float64))
                share = torch.rand(p.shape, generator=generator, dtype=torch.float64) * 2 - 1
                moved.append(p * (1 + 2 * unit * share.to(p.device)))
            try:
                there = selected_gradient(self._program, self._choices, moved, self._weights)
            except ReplayError:
                continue
            changes = (
                ROUNDING_MARGIN * (t - g).abs() for t, g in zip(there, self._gradient, strict=True)
            )
            found = tuple(torch.maximum(a, b) for a, b in zip(found, changes, strict=True))
        return found

    def _is_run_again(self, other: Sequence[torch.Tensor], *, functions: bool = False) -> bool:
        """Whether the recorded operations, run again in their own type, return just that.

        Then nothing but they made it. In half precision that would say little of a backward pass
        that is coarsely wrong.
        """
        trace = self._program.analysis.trace
        kinds = {d for d in trace.slot_dtypes.values() if d.is_floating_point or d.is_complex}
        if self._double or kinds != {torch.float32}:
            return False
        program = self._program
        again = Program(program.analysis, program.variables, torch.float32, program.deadline)
        try:
            found = natural_gradient(again, functions=functions)
        except ReplayError:
            return False
        held = [torch.float32] * len(found)
        return _within(_gaps(other, found), spacings(found, held))

    def _is_its_own(self, other: Sequence[torch.Tensor]) -> bool:
        """Whether another gradient is what the program's own type makes of this one.

        What PyTorch's formulas, and custom Functions' own, return in float32 is just the other;
        in float64 they return this one. The same formulas gave both, so that what is between them
        is rounding, however long the program is: no errors need be sampled.
        """
        if not self._is_run_again(other, functions=True):
            return False
        try:
            wide = natural_gradient(self._program, functions=True)
        except ReplayError:
            return False
        gaps, unit = _gaps(wide, self._gradient), SAME_FORMULA * unit_roundoff(torch.float32)
        return any(_within(gaps, [unit * t for t in terms]) for terms in self.terms(_SIGNS))

    def _sample(self) -> None:
        self._count += 1
        for double in self._modes:
            moved = None
            for size in ERROR_SIZES if double else OWN_ERROR_SIZES:
                moved = self._moved(Errors(self._count, size, double))
                if moved is not None:
                    break
            if moved is None:
                self.failed = True
                return
            changes = [(m - g) / size for m, g in zip(moved, self._gradient, strict=True)]
            self._largest = tuple(
                torch.maximum(most, c.abs()) for most, c in zip(self._largest, changes, strict=True)
            )
            self._along = [
                max(most, abs(float((c * g).sum())))
                for most, c, g in zip(self._along, changes, self._gradient, strict=True)
            ]

    def _moved(self, errors: Errors) -> Tensors | None:
        """A gradient with errors; None where they lead out of the function's domain."""
        run = self._run(errors)
        return None if run is None else self._gradient_of(run)

    def _run(self, errors: Errors) -> Run | None:
        try:
            return self._program.run(choices=self._choices, weights=self._weights, errors=errors)
        except ReplayError:
            return None

    def _gradient_of(self, run: Run, *, again: bool = False) -> Tensors | None:
        self._program.deadline.ask("computing what rounding can do to the gradient")
        try:
            found = gradient_of(run, self._program, again=again)
        except ReplayError:
            return None
        return found if all_finite(found) else None


def _gaps(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [(a.detach().to(torch.float64) - b).abs() for a, b in zip(one, other, strict=True)]


def _within(gaps: Sequence[torch.Tensor], bounds: Sequence[torch.Tensor]) -> bool:
    return all(bool((g <= b).all()) for g, b in zip(gaps, bounds, strict=True))
