"""All selections that can be active near the point, found cell by cell.

Depth first over the live kinks in evaluation order; at each, the cone of directions that leads
here is split exactly among the kink's candidates, so the work grows with the number of feasible
cells and not with 2^k. A candidate whose cone is empty is dropped only if the contradiction holds
near the point and not merely to first order (design of the exclusion: docs/theory.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.arrangement import ThinChamberError, integer_row
from clarke.capture import input_slots
from clarke.constraints import flatten
from clarke.constraints.nearby import nearby_point
from clarke.decide.cells import Cell, Cells, Exclusion
from clarke.decide.cone import Cone
from clarke.decide.exclusions import Exclusions
from clarke.decide.flat import Fork, chamber_cells, planes_of
from clarke.decide.identity import Form, pinned_weights
from clarke.decide.limits import Limits
from clarke.decide.linear import LinearParts, linear_parts
from clarke.decide.live import is_zero, primal
from clarke.decide.options import Condition, Kink, Node, Option, Rival, is_sure, levels_of, side_of
from clarke.decide.slopes import Slopes
from clarke.errors import BudgetError
from clarke.feasibility import find_witness
from clarke.kinks.choices import ChoiceRule
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import (
    EXACT_ROW_WORK,
    LISTED_AT_ONCE,
    ROW_ENTRIES,
    ROWS_ROUNDING,
    WITNESS_MARGIN,
)
from clarke.steering import Errors, aliases, selected_gradient, shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.live import Live
    from clarke.steering import Program, Site

    Array = NDArray[np.float64]

_WIDE = 64  # above this many variables, directions are searched in a random subspace


@dataclass(frozen=True, eq=False)
class Derivatives:
    """What was differentiated so far, by the selection of the kinks that matter for it.

    Attributes:
        switching: Slopes of a site's candidates and switching functions.
        totals: Gradients of the result.
    """

    switching: dict[tuple[object, ...], Slopes] = field(default_factory=dict)
    totals: dict[tuple[object, ...], Array] = field(default_factory=dict)


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
        self._exclude = Exclusions(
            program, generator, affine=live.affine, whole=self._subspace is None
        )
        self._lines: list[tuple[Array, Callable[[], Array]]] = []
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
            fork = _fork(kink, options)
            if fork is None:
                return None
            forks.append(fork)
        return forks, fixed

    # ------------------------------------------------------------ one node

    def _enter(self, kink: Kink, option: Option, node: Node) -> list[Node]:
        """The branches below a node in which a kink takes an option: one, or one for each order."""
        chosen = self._chosen(kink, option, node)
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

    def _chosen(self, kink: Kink, option: Option, node: Node) -> Node:
        """A node's branch in which a kink has its choice and no conditions yet."""
        position = kink.site.position
        choices = dict(node.choices)
        touch = kink.site.touch
        own = choices.get(position)
        if option.shares is not None:
            own = touch.weights.clone() if own is None else own.clone()
            own[touch.owner == kink.index] = torch.from_numpy(option.shares)
        else:
            own = touch.chosen() if own is None else own.clone()
            own[kink.index] = option.choice
        choices[position] = own
        return replace(
            node,
            choices=choices,
            pinned=node.pinned | {kink.number} if option.pinned else node.pinned,
            free=(*node.free, kink.number) if option.free else node.free,
        )

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
        if closed and self._exclude.excluded(child, edge):
            self._exclusions.append(Exclusion(np.stack([r.values for r in child.rows])))
            return None
        return child

    def _row(self, values: Array, form: Form, noise: Callable[[], Array]) -> Condition:
        self.deadline.ask("writing rows in integers")
        exact = integer_row(values.tolist())
        if self._subspace is not None:
            columns = self._subspace.astype(object)
            exact = tuple(int(v) for v in np.asarray(exact, dtype=object) @ columns)
        size = float(np.abs(values).max())
        number, sign = self._class_of(values / size, lambda: noise() / size)
        bits = 1 << (2 * number), 1 << (2 * number + 1)
        return Condition(values, form, noise, exact, *(bits if sign > 0 else bits[::-1]))

    def _class_of(self, unit: Array, noise: Callable[[], Array]) -> tuple[int, int]:
        """Number of the line that a row spans, and the side, up to rounding."""
        if self._lines:
            known = np.stack([line for line, _ in self._lines])
            for sign in (1, -1):
                gaps = np.abs(known - sign * unit)
                for number in np.flatnonzero(gaps.max(axis=1) <= ROWS_ROUNDING).tolist():
                    # In units in which an entry is large, a difference in it may be, too.
                    line, its = self._lines[number]
                    apart = gaps[number] > ROWS_ROUNDING * np.maximum(np.abs(line), np.abs(unit))
                    if not apart.any() or bool((gaps[number] <= noise() + its())[apart].all()):
                        return number, sign
        self._lines.append((unit, noise))
        return len(self._lines) - 1, 1

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
        touch = kink.site.touch
        mine = np.flatnonzero((touch.owner == kink.index).numpy())
        members = touch.members[torch.from_numpy(mine)].tolist()
        slopes = found.candidates[mine]
        room = found.room(self._program, mine)
        if isinstance(kink.site.rule, ChoiceRule):
            return self._tied_options(kink, kink.site.rule, found, mine.tolist(), room)
        boolean = kink.site.rule.by_value
        if bool((np.ptp(slopes, axis=0) <= 2 * room.max(axis=0)).all()) and not boolean:
            return [Option(int(touch.chosen()[kink.index]), (), pinned=False)]
        levels = found.switching[:, kink.index]
        vanish = found.vanishing(self._program, kink.index)
        if isinstance(kink.site.rule, ComparisonRule) and self._settled(kink, node, vanish):
            return [Option(int(touch.chosen()[kink.index]), ())]
        if isinstance(kink.site.rule, ComparisonRule) and kink.site.rule.isolated:
            # Equality holds on a null set only: limits of gradients do not see it.
            return [Option(int(kink.site.rule.below), ())]
        options = []
        for member in members:
            rows, decided = [], True
            for level, above in levels_of(kink.site.rule, members):
                sign = side_of(kink.site.rule, member, above)
                if vanish[level]:
                    decided = False
                    continue
                form = Form(kink.site.position, level * touch.count + kink.index, None, sign)
                noise = partial(found.noise_of_switching, self._program, level, kink.index)
                rows.append(self._row(sign * levels[level], form, noise))
            options.append(Option(member, tuple(rows), decided))
        return options

    def _settled(self, kink: Kink, node: Node, vanish: NDArray[np.bool_]) -> bool:
        """Whether both sides of a comparison stay equal in this branch: it keeps its answer."""
        if not vanish.all():
            return False
        weights = pinned_weights(self._program, node.choices, node.pinned, self._generator)
        moved = nearby_point(self._program, self._generator)

        def compared(errors: Errors | None = None) -> torch.Tensor:
            run = self._program.run(
                moved,
                weights=weights,
                choices=node.choices,
                probe=True,
                grad=False,
                errors=errors,
            )
            return primal(run.probes[kink.site.position].switching).reshape(-1)

        return bool(is_zero(self._program, compared(), compared)[kink.index])

    def _tied_options(
        self,
        kink: Kink,
        rule: ChoiceRule,
        found: Slopes,
        places: list[int],
        room: Array,
    ) -> list[Option]:
        """Tied elements; those with equal gradients count as one where functions are affine."""
        members = kink.site.touch.members[torch.tensor(places)].tolist()
        slopes = found.candidates[places]

        def equal(i: int, others: list[int]) -> NDArray[np.bool_]:
            self.deadline.ask("comparing {} tied elements", len(members))
            gaps = np.abs(slopes[others] - slopes[i])
            same: NDArray[np.bool_] = (gaps <= room[others] + room[i]).all(axis=1)
            return same

        leaders: list[int] = []
        counts: list[int] = []
        for i in range(len(members)):
            known = equal(i, leaders) if self._live.affine else np.zeros(0, dtype=bool)
            if known.any():
                counts[int(known.argmax())] += 1
            else:
                leaders.append(i)
                counts.append(1)
        entries = len(leaders) * (len(leaders) - 1) * self._n
        if entries > ROW_ENTRIES:
            raise BudgetError(
                f"{len(leaders)} elements are tied at {kink.site.touch.location}: comparing each "
                f"with each takes {entries:,} numbers, more than {int(ROW_ENTRIES):,}."
            )

        def row(i: int, j: int) -> Condition:
            """The condition that one is greater than another."""
            return self._row(
                slopes[i] - slopes[j],
                Form(kink.site.position, places[i], places[j], 1.0),
                partial(found.noise_of_candidates, self._program, [places[i], places[j]]),
            )

        most = rule.greater(kink.site.touch, kink.index)
        options = []
        for i in leaders:
            same = equal(i, leaders)
            own = sum(c for c, equals in zip(counts, same.tolist(), strict=True) if equals)
            others = [(j, c) for j, c, s in zip(leaders, counts, same, strict=True) if not s]
            fewest, all_of_them = most - own + 1, sum(c for _, c in others)
            option = Option(members[i], (), pinned=len(leaders) > 1)
            if most <= 0 or not others:
                option = replace(option, rows=tuple(row(i, j) for j, _ in others))
            elif fewest >= all_of_them:
                option = replace(option, rows=tuple(row(j, i) for j, _ in others))
            else:
                rivals = tuple(Rival(row(j, i), row(i, j), c) for j, c in others)
                option = replace(option, rivals=rivals, fewest=fewest, most=most)
            options.append(option)
        return options

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
                self._depends[site.position] = self._find_dependencies(site, before)
        return found

    def _independent(self) -> bool:
        """Whether no live kink's arguments depend on another live kink."""
        return not any(
            self._find_dependencies(k.site, tuple(p for p in self._sites if p < k.site.position))
            for k in self._kinks
        )

    def _find_dependencies(self, site: Site, before: tuple[int, ...]) -> tuple[int, ...]:
        """Earlier sites whose pieces can change this site's gradients (a superset)."""
        trace = self._program.analysis.trace
        shared = shared_memory(trace)
        reach: dict[int, set[int]] = {}
        for position, op in enumerate(trace.ops[: site.position + 1]):
            self._program.deadline.ask()
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


def _fork(kink: Kink, options: list[Option]) -> Fork | None:
    """A kink with one hyperplane between its two options; None if it is another."""
    if len(options) != 2 or any(len(o.rows) != 1 or o.rivals for o in options):
        return None
    below, above = options
    row = above.rows[0]
    if row.positive != below.rows[0].negative:
        return None
    number = row.positive.bit_length() - 1
    return Fork(
        kink.number,
        kink.site.position,
        kink.index,
        above.choice,
        below.choice,
        row.values,
        number // 2,
        number % 2 == 1,
        row.noise,
    )
