"""The first-order structure of a program: linear forms between one kink and the next.

Every touched kink is *cut*: its result becomes a variable of its own. Between cuts the program is
smooth, so the gradients of candidates, switching functions and result with respect to variables and
cut results are single vectors, whatever the selection. All selections' gradients are made of them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import flatten, random_tangents, tangent
from clarke.deadline import UNLIMITED
from clarke.decide.live import primal
from clarke.errors import BudgetError
from clarke.kinks.choices import ChoiceRule
from clarke.kinks.model import UnsteeredRule
from clarke.kinks.regions import RegionRule
from clarke.kinks.steps import ComparisonRule
from clarke.steering import Nudges
from clarke.tangents import forward_mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.steering import MaskUse, Program, Run, Site

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

_CHUNK = 64  # backward passes that are taken at once


@dataclass(frozen=True, eq=False)
class Kinks:
    """The cut kinks, and the uses of cut comparisons, in evaluation order.

    Attributes:
        owner: (M,) the kink of every candidate, sorted.
        weights: (M,) AD's weights of the candidates.
        split: (K,) bool: the kink has two candidates, and the second is active where its switching
            function is positive.
        side: (K,) for other kinks: 1 if the result is the largest candidate, -1 if the smallest,
            0 if it may be any.
        number: (K,) the touched kink's number in the analysis.
        by_values: (K,) bool: the candidates' own values tell which it is, whatever else moves.
        round: (K,) bool: the result is the length of the vector of all candidates.
        proper: Whether AD's derivative at every kink is the mean of the candidates' by `weights`.
    """

    owner: Index
    weights: Array
    split: NDArray[np.bool_]
    side: Index
    number: Index
    by_values: NDArray[np.bool_]
    round: NDArray[np.bool_]
    proper: bool

    @property
    def count(self) -> int:
        """K."""
        return len(self.split)

    @property
    def first(self) -> Index:
        """(K,) the first candidate of every kink."""
        return np.searchsorted(self.owner, np.arange(self.count))


@dataclass(frozen=True, eq=False)
class Look:
    """What one run of the cut program shows.

    Attributes:
        candidates: (M,) values of the candidates.
        switching: (K,) values of the switching functions, 0 for kinks that are not `split`.
        output: The result.
        inputs: Variables, then cut results.
    """

    candidates: torch.Tensor
    switching: torch.Tensor
    output: torch.Tensor
    inputs: tuple[torch.Tensor, ...]


class CutProgram:
    """A program with some of its kinks cut.

    Args:
        program: The program.
        cut: (count,) bool, the kinks to cut.

    Raises:
        BudgetError: A kink has a form that cannot be cut.
    """

    def __init__(self, program: Program, cut: torch.Tensor) -> None:
        self.program = program
        self.cut = cut
        self._sites = [
            s
            for s in program.analysis.ordered()
            if s.touch.count and bool(cut[s.first : s.first + s.touch.count].any())
        ]
        for site in self._sites:
            if isinstance(site.rule, UnsteeredRule):
                raise BudgetError(f"{site.touch.op.shown} has no pieces to choose from.")
        run = program.run(probe=True, nudge=Nudges(program.dtype, cut))
        self.look = self._see(run)
        cut_values = (self.look.candidates, *self.look.inputs[len(run.leaves) :])
        if any(v.is_complex() for v in cut_values):
            raise BudgetError("A kink's result is complex.")
        self.kinks = self._describe(run)
        # The place of each kink's result among all cut results.
        self._columns = self._find_columns(run)

    @property
    def size(self) -> int:
        """How many entries the variables have."""
        return sum(p.numel() for p in self.program.point)

    def along(
        self, generator: torch.Generator, direction: tuple[torch.Tensor, ...] | None = None
    ) -> tuple[Array, Array]:
        """Slopes of candidates and switching functions along a direction, (M,) and (K,).

        Without one: along a random direction of variables and cut results.
        """
        nudges = Nudges(self.program.dtype, self.cut, generator if direction is None else None)
        with forward_mode():
            direction = direction or random_tangents(self.program, generator)
            run = self.program.run(tangents=direction, probe=True, nudge=nudges, grad=False)
            look = self._see(run)
            return tangent(look.candidates).numpy(), tangent(look.switching).numpy()

    def beside(self, point: Sequence[torch.Tensor], generator: torch.Generator) -> Array:
        """Values of the switching functions at a point nearby, cut results moved too."""
        nudges = Nudges(self.program.dtype, self.cut)
        nudges.scatter = generator
        run = self.program.run(point, probe=True, nudge=nudges, grad=False)
        return primal(self._see(run).switching).numpy()

    def look_beside(self, point: Sequence[torch.Tensor], generator: torch.Generator) -> Look:
        """The same, with what gradients need."""
        nudges = Nudges(self.program.dtype, self.cut)
        nudges.scatter = generator
        return self._see(self.program.run(point, probe=True, nudge=nudges))

    def pull(
        self, values: torch.Tensor, weights: Array, look: Look | None = None
    ) -> tuple[Array, Array]:
        """The gradient of a weighted sum of values: (n,) by variables, (K,) by kinks' results."""
        if not values.requires_grad:
            return np.zeros(self.size), np.zeros(self.kinks.count)
        factors = torch.from_numpy(np.ascontiguousarray(weights)).to(values.dtype)
        inputs = (look or self.look).inputs
        grads = torch.autograd.grad(
            (values * factors).sum(), inputs, retain_graph=True, materialize_grads=True
        )
        return self._parted(flatten(grads)[None, :], 0)

    def rows(self, values: torch.Tensor, deadline: Deadline = UNLIMITED) -> tuple[Array, Array]:
        """The gradients of all values: (m, n) by variables and (m, K) by kinks' results."""
        m = values.numel()
        total = sum(i.numel() for i in self.look.inputs)
        found = np.zeros((m, total))
        if values.requires_grad:
            took = 0.0
            for start in range(0, m, _CHUNK):
                deadline.afford(took, "differentiating the program between its kinks")
                began = deadline.spent
                stop = min(start + _CHUNK, m)
                found[start:stop] = self._backward(values, start, stop, deadline)
                took = deadline.spent - began
        return self._parted(found, 1)

    def _backward(self, values: torch.Tensor, start: int, stop: int, deadline: Deadline) -> Array:
        picks = torch.zeros(stop - start, values.numel(), dtype=values.dtype)
        picks[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        inputs = self.look.inputs
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that torch batches some operations by a loop
                grads = torch.autograd.grad(
                    values,
                    inputs,
                    picks,
                    retain_graph=True,
                    is_grads_batched=True,
                    allow_unused=True,
                )
        except RuntimeError:  # an operation without a batched backward pass
            each = []
            for i in range(start, stop):
                deadline.ask("differentiating the program between its kinks")
                one = torch.autograd.grad(
                    values[i], inputs, retain_graph=True, materialize_grads=True
                )
                each.append(flatten(one))
            return np.stack(each)
        parts = [
            torch.zeros(stop - start, i.numel())
            if g is None  # type: ignore[redundant-expr]
            else g.reshape(stop - start, -1)
            for g, i in zip(grads, inputs, strict=True)
        ]
        return torch.cat([p.detach().to(torch.float64) for p in parts], 1).numpy()

    def _parted(self, rows: Array, keep: int) -> tuple[Array, Array]:
        n = self.size
        own, cut = rows[:, :n], rows[:, n:][:, self._columns]
        return (own, cut) if keep else (own[0], cut[0])

    # ------------------------------------------------------------ what a run shows

    def _see(self, run: Run) -> Look:
        candidates, switching = [], []
        for site in self._sites:
            if site.rule.by_value:
                continue
            c, s, _ = self._at_site(site, run)
            candidates.append(c)
            switching.append(s)
        for use in self._uses(run):
            c, s = self._at_use(use, run)
            candidates.append(c)
            switching.append(s)
        nudges = run.nudges
        leaves = tuple(nudges.leaves) if nudges is not None else ()
        return Look(
            torch.cat(candidates) if candidates else torch.zeros(0, dtype=self.program.dtype),
            torch.cat(switching) if switching else torch.zeros(0, dtype=self.program.dtype),
            run.output.sum(),
            (*run.leaves, *leaves),
        )

    def _own(self, site: Site) -> torch.Tensor:
        """(K,) which of a site's kinks are cut."""
        return self.cut[site.first : site.first + site.touch.count]

    def _at_site(self, site: Site, run: Run) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Candidates and switching functions of a site's cut kinks, and which are split."""
        touch, probe = site.touch, run.probes[site.position]
        own = self._own(site)
        sizes = torch.bincount(touch.owner, minlength=touch.count)
        first = torch.searchsorted(touch.owner, torch.arange(touch.count))
        split = sizes == 2
        low = probe.candidates[first]
        switching = torch.zeros_like(low)
        if isinstance(site.rule, RegionRule):
            levels = probe.switching.reshape(-1, touch.count)
            at = touch.members[first].clamp(max=levels.shape[0] - 1)
            found = levels[at, torch.arange(touch.count)]
        else:
            sides = self._sides(site)
            split = split & (sides != 0) & (not site.rule.by_weights)
            high = probe.candidates[(first + 1).clamp(max=probe.candidates.numel() - 1)]
            found = sides.to(low.dtype) * (high - low)
        switching = torch.where(split, found, switching)
        return probe.candidates[own[touch.owner]], switching[own], split[own]

    @staticmethod
    def _sides(site: Site) -> torch.Tensor:
        """(K,) 1 where a maximum is taken, -1 for a minimum, 0 for what is neither."""
        rule, touch = site.rule, site.touch
        if rule.by_weights:
            return torch.ones(touch.count, dtype=torch.int64)
        if not isinstance(rule, ChoiceRule):
            return torch.zeros(touch.count, dtype=torch.int64)
        if type(rule).side is ChoiceRule.side:
            return torch.full((touch.count,), rule.sign)
        return torch.tensor([rule.side(touch, k) for k in range(touch.count)])

    def _uses(self, run: Run) -> list[MaskUse]:
        """Where cut comparisons reach values, each element by one of them."""
        found = []
        for use in run.mask_uses:
            if use.kink.numel() and not bool(self.cut[use.kink].any()):
                continue
            single = use.table is not None and use.table.shape[0] == 2
            if not single or not bool(self.cut[use.kink].all()):
                raise BudgetError("A mask is used in a way that cannot be cut.")
            found.append(use)
        return found

    def _at_use(self, use: MaskUse, run: Run) -> tuple[torch.Tensor, torch.Tensor]:
        """What a comparison's two outcomes give, in the order of its switching function."""
        _, above, isolated, below, values = self._compared(use, run)
        table = use.table
        if table is None:
            raise BudgetError("A mask is used in a way that cannot be cut.")
        low = torch.where(above, table[0], table[1])
        high = torch.where(above, table[1], table[0])
        only = torch.where(below, table[1], table[0])
        # What holds at equality only holds nowhere beside it.
        pair = torch.stack([torch.where(isolated, only, low), torch.where(isolated, only, high)], 1)
        return pair.reshape(-1), torch.where(isolated, torch.zeros_like(values), values)

    def _compared(
        self, use: MaskUse, run: Run
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """By element of a use: the comparison's number, its rule's sides, and what it compares."""
        labels = use.labels
        if labels is None:
            raise BudgetError("A mask is used in a way that cannot be cut.")
        kinks = labels[0] - 1
        above = torch.ones(kinks.shape, dtype=torch.bool)
        isolated, below = torch.zeros_like(above), torch.zeros_like(above)
        values: list[torch.Tensor] = []
        for place, kink in enumerate(kinks.tolist()):
            site = self.program.analysis.site_of(kink)
            probe = run.probes[site.position]
            values.append(probe.switching.reshape(-1)[kink - site.first])
            if isinstance(site.rule, ComparisonRule):
                above[place] = site.rule.above
                isolated[place] = site.rule.isolated
                below[place] = site.rule.below
        return kinks, above, isolated, below, torch.stack(values)

    def _find_columns(self, run: Run) -> Index:
        """The place among all cut results of every kink's, in the order of `_see`."""
        nudges = run.nudges
        if nudges is None or not nudges.kinks:
            return np.zeros(0, dtype=np.int64)
        for first, number in nudges.spread:
            masks = self.program.analysis.site_of(first).rule.by_value  # cut where they are used
            if not masks and bool(self.cut[first : first + number].any()):
                raise BudgetError("An operation returns several values for one kink.")
        kinks = torch.cat(nudges.kinks)
        use = torch.cat(
            [torch.full(k.shape, u) for k, u in zip(nudges.kinks, nudges.of_uses, strict=True)]
        )
        place = torch.full((self.program.analysis.count,), -1, dtype=torch.int64)
        place[kinks[~use]] = (~use).nonzero().squeeze(1)
        own = [
            site.first + self._own(site).nonzero().squeeze(1)
            for site in self._sites
            if not site.rule.by_value
        ]
        found = torch.cat([*(place[k] for k in own), use.nonzero().squeeze(1)])
        if bool((found < 0).any()) or found.numel() != self.kinks.count:
            raise BudgetError("A kink's result cannot be cut.")
        return found.numpy()

    def _describe(self, run: Run) -> Kinks:
        owner, weights, split, side, number, ordered, curved = [], [], [], [], [], [], []
        proper, count = True, 0
        for site in self._sites:
            if site.rule.by_value:
                continue
            touch, own = site.touch, self._own(site)
            sizes = torch.bincount(touch.owner, minlength=touch.count)[own]
            owner.append(count + torch.repeat_interleave(torch.arange(sizes.numel()), sizes))
            weights.append(touch.weights[own[touch.owner]])
            split.append(self._at_site(site, run)[2])
            side.append(self._sides(site)[own])
            number.append(site.first + own.nonzero().squeeze(1))
            curved.append(torch.full_like(number[-1], site.rule.by_weights).bool())
            ordered.append(curved[-1] | isinstance(site.rule, ChoiceRule))
            proper = proper and not any(bool(own[k].any()) for k in touch.hazards.values())
            count += sizes.numel()
        for use in self._uses(run):
            kinks, above, isolated, _, _ = self._compared(use, run)
            owner.append(count + torch.arange(kinks.numel()).repeat_interleave(2))
            shares = torch.tensor([self._share(k) for k in kinks.tolist()], dtype=torch.float64)
            high = torch.where(above, shares, 1.0 - shares)
            weights.append(torch.stack([1.0 - high, high], 1).reshape(-1))
            split.append(~isolated)
            side.append(torch.zeros_like(kinks))
            number.append(kinks)
            ordered.append(torch.zeros_like(kinks, dtype=torch.bool))
            curved.append(ordered[-1])
            proper = proper and not bool(isolated.any())
            count += kinks.numel()
        lists = (owner, weights, split, side, number, ordered, curved)
        kinds = (np.int64, np.float64, bool, np.int64, np.int64, bool, bool)
        o, w, cut, bent, which, told, curve = map(_whole, lists, kinds)
        return Kinks(o, w, cut, bent, which, told, curve, proper)

    def _share(self, kink: int) -> float:
        """AD's weight of a comparison that holds, or of the sign 1."""
        site = self.program.analysis.site_of(kink)
        touch = site.touch
        mine = (touch.owner == kink - site.first) & (touch.members == 1)
        return float(touch.weights[mine].sum())


def _whole(parts: list[torch.Tensor], kind: type) -> NDArray[Any]:
    return (torch.cat(parts).numpy() if parts else np.zeros(0)).astype(kind)
