"""How often each place of the program touches kinks: the paper's Table 2, for any model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.decide import Decision, TouchCount

_Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class PlaceStatistics:
    """Kinks of one operation at one place, over all judged steps.

    Attributes:
        operation: Operator name, such as ``max_pool2d_with_indices``.
        module: Path of the module that ran it, "" outside of modules.
        file: The user's source file.
        line: The line in it.
        steps: Judged steps in which it ran.
        elements: Output elements seen, over all steps.
        touched: Elements at which several pieces meet, over all steps.
        tied: The touched elements that choose among several inputs (maxima and minima).
        relevant: Touched elements whose piece can change the gradient.
        rounded: The relevant elements that are tied by rounding alone, where these were told apart.
        nonzero: For maxpools behind a ReLU, as far as judged quickly: ties of a value other than
            zero, over all steps (what the paper counts).
        steps_touched: Steps in which it touched any kink.
        steps_relevant: Steps in which any touched kink was relevant.
        steps_open: Steps with touched kinks whose relevance was not found out.
    """

    operation: str
    module: str
    file: str
    line: int
    steps: int
    elements: int
    touched: int
    tied: int
    relevant: int
    rounded: int
    nonzero: int
    steps_touched: int
    steps_relevant: int
    steps_open: int

    @property
    def elements_per_step(self) -> float:
        """Mean number of elements in a step."""
        return self.elements / self.steps if self.steps else 0.0

    @property
    def touched_share(self) -> float:
        """The part of all elements that was touched, from 0 to 1."""
        return self.touched / self.elements if self.elements else 0.0

    @property
    def mean_touched(self) -> float:
        """Mean number of touched elements in the steps that touched any; 0 if none did."""
        return self.touched / self.steps_touched if self.steps_touched else 0.0

    @property
    def mean_relevant(self) -> float:
        """Mean number of relevant elements in the steps that had any; 0 if none had."""
        return self.relevant / self.steps_relevant if self.steps_relevant else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The statistics as plain data for JSON."""
        return {
            **vars(self),
            "touched_share": self.touched_share,
            "mean_touched": self.mean_touched,
            "mean_relevant": self.mean_relevant,
        }


@dataclass
class _Counts:
    """What one step adds for one place, and what has been added so far."""

    steps: int = 0
    elements: int = 0
    touched: int = 0
    tied: int = 0
    relevant: int = 0
    rounded: int = 0
    nonzero: int = 0
    steps_touched: int = 0
    steps_relevant: int = 0
    steps_open: int = 0


@dataclass
class PlaceCounter:
    """Adds up decisions; grows with the number of places, not of steps."""

    _places: dict[_Key, _Counts] = field(default_factory=dict)
    # Of a program that is known, step after step may have one and the same decision.
    _last: Callable[[], Decision | None] = lambda: None
    _of_last: list[tuple[_Counts, _Counts]] = field(default_factory=list)

    def add(self, decision: Decision) -> None:
        """Count the kinks of one judged step."""
        if decision.analysis is None:
            if decision is not self._last():
                self._last = ref(decision)
                self._of_last = self._totals(_from_counts(decision.counts))
            _add(self._of_last, open_=False)
            return
        relevant = None if decision.relevance is None else decision.relevance.relevant
        step: dict[_Key, _Counts] = {}
        for site in decision.analysis.ordered():
            touch = site.touch
            where = touch.location
            key = (touch.op.short_name, where.module, where.file, where.line)
            counts = step.setdefault(key, _Counts())
            counts.elements += max(touch.base.numel(), touch.count)
            counts.touched += touch.count
            if touch.base.dtype == torch.int64:  # positions in the input: a choice among elements
                counts.tied += touch.count
            if relevant is not None:
                counts.relevant += int(relevant[site.first : site.first + touch.count].sum())
            if decision.rounded is not None:
                own = decision.rounded[site.first : site.first + touch.count]
                counts.rounded += int(own.sum())
        _add(self._totals(step), open_=relevant is None)

    def _totals(self, step: dict[_Key, _Counts]) -> list[tuple[_Counts, _Counts]]:
        """What has been added so far, beside what a step adds."""
        return [(self._places.setdefault(key, _Counts()), counts) for key, counts in step.items()]

    def places(self) -> tuple[PlaceStatistics, ...]:
        """The statistics so far, in the order in which places were first met."""
        return tuple(PlaceStatistics(*key, **vars(c)) for key, c in self._places.items())


def _add(pairs: list[tuple[_Counts, _Counts]], *, open_: bool) -> None:
    for total, counts in pairs:
        total.steps += 1
        total.elements += counts.elements
        total.touched += counts.touched
        total.tied += counts.tied
        total.relevant += counts.relevant
        total.rounded += counts.rounded
        total.nonzero += counts.nonzero
        total.steps_touched += counts.touched > 0
        total.steps_relevant += counts.relevant > 0
        total.steps_open += counts.touched > 0 and open_


def _from_counts(found: Sequence[TouchCount]) -> dict[_Key, _Counts]:
    """The counts of one step that was judged without an analysis."""
    step: dict[_Key, _Counts] = {}
    for count in found:
        where = count.op.location
        key = (count.op.short_name, where.module, where.file, where.line)
        counts = step.setdefault(key, _Counts())
        counts.elements += count.elements
        counts.touched += count.touched
        counts.tied += count.touched if count.touch is None and not count.choice else 0
        counts.relevant += count.relevant
        counts.nonzero += count.nonzero or 0
    return step
