"""All selections that can be active near the point, found cell by cell.

Depth first over the live kinks in evaluation order; at each, the cone of directions that leads
here is split exactly among the kink's candidates, so the work grows with the number of feasible
cells and not with 2^k. A candidate whose cone is empty is dropped only if the contradiction holds
near the point and not merely to first order (design of the exclusion: docs/theory.md).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.arrangement import ThinChamberError
from clarke.capture import input_slots
from clarke.constraints import flatten
from clarke.decide.cells import Cell, Cells, Exclusion
from clarke.decide.cone import Cone
from clarke.decide.exclusions import Exclusions
from clarke.decide.flat import Fork, chamber_cells, planes_of
from clarke.decide.limits import Limits
from clarke.decide.linear import LinearParts, linear_parts
from clarke.decide.nodes import (
    Condition,
    Conditions,
    Derivatives,
    Kink,
    Node,
    Option,
    fork_of,
    is_sure,
)
from clarke.decide.options import Options
from clarke.decide.slopes import Slopes
from clarke.errors import BudgetError
from clarke.feasibility import find_witness
from clarke.numerics import (
    EXACT_ROW_WORK,
    LISTED_AT_ONCE,
    ROWS_ROUNDING,
    WITNESS_MARGIN,
)
from clarke.steering import aliases, selected_gradient, shared_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.live import Live
    from clarke.steering import Program, Site

    Array = NDArray[np.float64]

_WIDE = 64  # above this many variables, directions are searched in a random subspace


class Enumeration:
    """Enumerates the cells of one program.

    Args:
        program: The program.
        live: The kinks to branch on.
        generator: Private randomness.
        limits: Budget.
        like: An earlier enumeration of the same program, whose derivatives are used again.

    Raises:
        BudgetError: on `run`, when the budget is spent.
    """

    def __init__(
        self,
        program: Program,
        live: Live,
        generator: torch.Generator,
        limits: Limits | None = None,
        like: Enumeration | None = None,
    ) -> None:
        self._program = program
        self._live = live
        self._generator = generator
        self._limits = limits or Limits()
        self._n = sum(p.numel() for p in program.point)
        many = int(live.kinks.sum())
        if many > self._limits.kinks:
            raise BudgetError(
                f"{many} kinks can change the gradient here; the exact answer is computed for at "
                f"most {self._limits.kinks}."
            )
        self._kinks = [
            Kink(site.first + i, site, i)
            for site in program.analysis.ordered()
            for i in live.kinks[site.first : site.first + site.touch.count]
            .nonzero()
            .flatten()
            .tolist()
        ]
        self._own = {
            k.site.position: live.kinks[k.site.first : k.site.first + k.site.touch.count].numpy()
            for k in self._kinks
        }
        self._sites = list(dict.fromkeys(k.site.position for k in self._kinks))
        self._subspace = self._pick_subspace()
        # Derivatives under a selection, AD's pieces where the key is silent.
        self.derivatives: Derivatives = Derivatives() if like is None else like.derivatives
        self._cache, self._totals = self.derivatives.switching, self.derivatives.totals
        self._depends: dict[int, tuple[int, ...]] = {}
        self._cells: list[Cell] = []
        self._exclusions: list[Exclusion] = []
        self._known: dict[tuple[int, int], list[Option]] = {}
        self._nodes = 0
        self._conditions = Conditions(program.deadline, self._subspace)
        self._rules = Options(program, live, generator, self._conditions)
        whole = self._subspace is None
        self._excluded = Exclusions(program, live, generator, whole=whole)
        self._linear: LinearParts | None = None

    def _pick_subspace(self) -> NDArray[np.int64] | None:
        if self._n <= _WIDE:
            return None
        size = min(self._n, _WIDE, 2 * sum(k.site.touch.count for k in self._kinks[:1]) + 40)
        seed = int(torch.randint(0, 1 << 31, (), generator=self._generator))
        return np.random.default_rng(seed).integers(-8, 9, size=(self._n, size))

    def run(self) -> Cells:
        """Visit all cells."""
        dimension = self._n if self._subspace is None else self._subspace.shape[1]
        self._linear = linear_parts(self._program, self._sites, independent=self._independent())
        whole = self._at_once()
        if whole is not None:
            return whole
        stack = [(0, Node(Cone.whole(dimension), {}))]
        while stack:
            depth, node = stack.pop()
            self._nodes += 1
            self._program.deadline.ask(
                "{} nodes and {} cells so far, {} kinks",
                self._nodes,
                len(self._cells),
                len(self._kinks),
            )
            if self._nodes > self._limits.nodes or len(self._cells) > self._limits.cells:
                raise BudgetError(
                    f"The exact answer needs more than {self._limits.nodes} nodes or "
                    f"{self._limits.cells} cells ({len(self._kinks)} kinks).",
                    {"nodes": self._nodes, "cells": len(self._cells)},
                )
            if depth == len(self._kinks):
                if self._is_rounding(node):
                    self._exclusions.append(Exclusion(np.stack([r.values for r in node.rows])))
                else:
                    self._cells.append(self._leaf(node))
                continue
            kink = self._kinks[depth]
            for option in self._options(kink, node):
                stack += [(depth + 1, child) for child in self._enter(kink, option, node)]
        return Cells(tuple(self._cells), tuple(self._exclusions))

    @property
    def deadline(self) -> Deadline:
        """The deadline of the call."""
        return self._program.deadline

    def flat_normals(self) -> tuple[Array | None, list[int]]:
        """All rows that any option may need and the kink of each; None if kinks are nested."""
        every = self._flat_options()
        if every is None or any(len(options) < 2 for _, options in every):
            return None, []
        rows, owners = [], []
        for kink, options in every:
            for option in options:
                own = (*option.rows, *(r.less for r in option.rivals))
                rows += [r.values for r in own]
                owners += [kink.number] * len(own)
        return (np.stack(rows) if rows else None), owners

    def _flat_options(self) -> list[tuple[Kink, list[Option]]] | None:
        """Every kink's options, where they are the same in all branches; else None."""
        if not self._independent() or any(k.site.rule.by_value for k in self._kinks):
            return None
        root = Node(Cone.whole(1), {})
        found = []
        for kink in self._kinks:
            self._program.deadline.ask("differentiating {} kinks", len(self._kinks))
            options = self._options(kink, root)
            if not all(o.decided for o in options):
                return None
            found.append((kink, options))
        return found

    def count(self) -> int | None:
        """How many cells there are, without listing them; None if that takes a list."""
        self._linear = linear_parts(self._program, self._sites, independent=self._independent())
        found = self._forks()
        if found is None:
            return None
        return planes_of(found[0], self._limits, self.deadline).count if found[0] else 1

    def _at_once(self) -> Cells | None:
        """All cells of kinks with two sides each that do not depend on each other."""
        found = self._forks()
        if found is None or not found[0] or self._linear is None:
            return None
        try:
            cells = chamber_cells(*found, self._own, self._linear, self._limits, self.deadline)
        except ThinChamberError:
            return None
        return Cells(cells, ())

    def _forks(self) -> tuple[list[Fork], dict[int, torch.Tensor]] | None:
        """The kinks as hyperplanes, and the choices of those that have one candidate only."""
        few = len(self._kinks) < LISTED_AT_ONCE and not self._limits.rounding
        if few or self._linear is None or not self._live.affine:
            return None
        every = self._flat_options()
        if every is None or len(every) ** 2 * self._n > EXACT_ROW_WORK:
            return None
        forks = []
        fixed = {p: self._program.analysis.sites[p].touch.chosen() for p in self._sites}
        for kink, options in every:
            if len(options) == 1 and not options[0].rows:
                fixed[kink.site.position][kink.index] = options[0].choice
                continue
            fork = fork_of(kink, options)
            if fork is None:
                return None
            forks.append(fork)
        return forks, fixed

    # ------------------------------------------------------------ one node

    def _enter(self, kink: Kink, option: Option, node: Node) -> list[Node]:
        """The branches below a node in which a kink takes an option: one, or one for each order."""
        chosen = node.choosing(kink, option)
        first = self._narrowed(kink, chosen, option.rows, decided=option.decided)
        branches = [] if first is None else [(first, 0)]
        left = sum(r.count for r in option.rivals)
        for rival in option.rivals:
            left -= rival.count
            wider: list[tuple[Node, int]] = []
            for branch, greater in branches:
                for row, more in ((rival.greater, rival.count), (rival.less, 0)):
                    if not option.fewest - left <= greater + more <= option.most:
                        continue
                    self._nodes += 1
                    self.deadline.ask("{} nodes, ordering tied elements", self._nodes)
                    child = self._narrowed(kink, branch, (row,), decided=True)
                    wider += [] if child is None else [(child, greater + more)]
            branches = wider
        return [branch for branch, _ in branches]

    def _narrowed(
        self, kink: Kink, node: Node, rows: Sequence[Condition], *, decided: bool
    ) -> Node | None:
        """A node with more conditions of a kink, or None if no point nearby satisfies them all."""
        cone, closed, sides, edge = node.cone, False, node.sides, None
        for row in rows:
            known, opposed = sides & row.positive, sides & row.negative
            sides |= row.positive
            if cone is None or closed or known:
                continue
            cut = None if opposed else cone.cut(row.exact, self.deadline)
            closed = cut is None
            edge = cone.edge(row.exact) if closed and not opposed else None
            cone = cone if cut is None else cut
        child = replace(
            node,
            cone=cone if decided and not closed else None,
            rows=(*node.rows, *rows),
            kinks=(*node.kinks, *([kink.number] * len(rows))),
            sides=sides,
        )
        if closed and self._excluded.holds(child, edge):
            self._exclusions.append(Exclusion(np.stack([r.values for r in child.rows])))
            return None
        return child

    def _is_rounding(self, node: Node) -> bool:
        """Whether a cell is flat but for rounding: one condition is zero in all of it."""
        cone = node.cone
        if not self._limits.rounding or not self._live.affine or cone is None or not cone.rays:
            return False
        one = Fraction(float(ROWS_ROUNDING))
        return any(cone.is_zero(r.exact, one) for r in node.rows)

    def _options(self, kink: Kink, node: Node) -> list[Option]:
        """The candidates that differ in gradient, with the rows that select each."""
        found = self._slopes(kink.site, node)
        known = self._known.get((kink.number, id(found)))
        if known is None:
            known = self._known[kink.number, id(found)] = self._list_options(kink, node, found)
        return known

    def _list_options(self, kink: Kink, node: Node, found: Slopes) -> list[Option]:
        return self._rules.of(kink, node, found)

    # ------------------------------------------------------------ gradients

    def _slopes(self, site: Site, node: Node) -> Slopes:
        """Slopes of a site's candidates and switching functions in a branch."""
        before = tuple(p for p in self._sites if p < site.position)
        depends = self._depends.get(site.position)
        key = (
            site.position,
            *(
                (p, tuple(node.choices[p].tolist()))
                for p in (depends or before)
                if p in node.choices
            ),
        )
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = Slopes.of(self._program, site, node.choices)
            if depends is None:
                self._depends[site.position] = self._behind(site, before)
        return found

    def _behind(self, site: Site, before: tuple[int, ...]) -> tuple[int, ...]:
        return sites_behind(self._program, site, before)

    def _independent(self) -> bool:
        """Whether no live kink's arguments depend on another live kink."""
        return not any(
            self._behind(k.site, tuple(p for p in self._sites if p < k.site.position))
            for k in self._kinks
        )

    def _leaf(self, node: Node) -> Cell:
        rows = np.stack([r.values for r in node.rows]) if node.rows else np.zeros((0, self._n))
        return Cell(
            choices=node.choices,
            gradient=self._gradient(node.choices),
            direction=None if node.cone is None else self._direction(node, node.cone, rows),
            rows=rows,
            kinks=np.asarray(node.kinks, dtype=np.int64),
            own=self._own,
        )

    def _gradient(self, choices: Mapping[int, torch.Tensor]) -> Array:
        if self._linear is None:
            name = tuple((p, *c.tolist()) for p, c in sorted(choices.items()))
            known = self._totals.get(name)
            if known is None:
                known = self._totals[name] = flatten(selected_gradient(self._program, choices))
            return known
        total = self._linear.base.copy()
        for position, choice in choices.items():
            total += self._linear.change(position, choice)
        return total

    def _direction(self, node: Node, cone: Cone, rows: Array) -> Array | None:
        """An interior direction with a margin that rounding of the rows cannot have made."""
        if not cone.rays:
            return np.ones(self._n)
        inside = cone.interior()
        if self._subspace is not None:
            inside = tuple(
                int(v) for v in self._subspace.astype(object) @ np.asarray(inside, object)
            )
        longest = max(abs(v) for v in inside) or 1
        direction = np.array([v / longest for v in inside])
        if len(rows) == 0:
            return direction
        values = rows @ direction
        sizes = np.linalg.norm(rows, axis=1) * np.linalg.norm(direction)
        if bool(np.all(values > WITNESS_MARGIN * sizes)) or is_sure(node.rows, direction):
            return direction
        found = find_witness(
            rows, deadline=self._program.deadline
        )  # a thin cone: look for its widest direction
        return found.direction


def sites_behind(program: Program, site: Site, before: tuple[int, ...]) -> tuple[int, ...]:
    """Earlier sites whose pieces can change this site's gradients (a superset)."""
    trace = program.analysis.trace
    shared = shared_memory(trace)
    reach: dict[int, set[int]] = {}
    for position, op in enumerate(trace.ops[: site.position + 1]):
        program.deadline.ask()
        mine: set[int] = set()
        for slot in input_slots(op):
            mine |= reach.get(shared.get(slot, slot), set())
        if position == site.position:
            return tuple(p for p in before if p in mine)
        if position in before:
            mine = mine | {position}
        written = input_slots(op) if aliases(op) else ()
        for slot in (*(o for o in op.outputs if o is not None), *written):
            name = shared.get(slot, slot)
            reach[name] = reach.get(name, set()) | mine
    return before
