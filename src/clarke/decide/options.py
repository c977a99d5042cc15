"""The candidates of a kink that differ in gradient, with the conditions that select each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints.nearby import nearby_point
from clarke.decide.identity import Form, pinned_weights
from clarke.decide.live import is_zero, primal
from clarke.decide.nodes import Condition, Conditions, Kink, Node, Option, Rival
from clarke.decide.slopes import Slopes
from clarke.errors import BudgetError
from clarke.kinks.choices import ChoiceRule
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import (
    ROW_ENTRIES,
)
from clarke.steering import Errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.decide.live import Live
    from clarke.kinks import KinkRule
    from clarke.steering import Program

    Array = NDArray[np.float64]


class Options:
    """Lists them in a branch of an enumeration.

    Args:
        program: The program.
        live: The kinks to branch on.
        generator: Private randomness.
        conditions: Writes the conditions.
    """

    def __init__(
        self, program: Program, live: Live, generator: torch.Generator, conditions: Conditions
    ) -> None:
        self._program = program
        self._live = live
        self._generator = generator
        self._conditions = conditions
        self._n = sum(p.numel() for p in program.point)

    def of(self, kink: Kink, node: Node, found: Slopes) -> list[Option]:
        """The options of a kink, from the slopes of its site in the branch."""
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
            for level, above in _levels(kink.site.rule, members):
                sign = _side(kink.site.rule, member, above)
                if vanish[level]:
                    decided = False
                    continue
                form = Form(kink.site.position, level * touch.count + kink.index, None, sign)
                noise = partial(found.noise_of_switching, self._program, level, kink.index)
                rows.append(self._conditions.of(sign * levels[level], form, noise))
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
            self._program.deadline.ask("comparing {} tied elements", len(members))
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
            return self._conditions.of(
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


def _levels(rule: KinkRule, members: Sequence[int]) -> list[tuple[int, int]]:
    """(switching function, first candidate above it) for the functions that vanish."""
    if rule.by_value:
        return [(0, 1)]
    return [(m, m + 1) for m in members[:-1]]


def _side(rule: KinkRule, member: int, above: int) -> float:
    """The sign that the switching function must have for a candidate."""
    if isinstance(rule, ComparisonRule):
        return 1.0 if member == int(rule.above) else -1.0
    return 1.0 if member >= above else -1.0
