"""What is written down of a training run, and how it is kept on disk."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from clarke.audit import Step

VERSION = 1


@dataclass
class Place:
    """The kinks of one operation of the network, step by step.

    Attributes:
        operation: Operator name.
        module: Module path.
        elements: Output elements in the largest step.
        touched, nonzero, relevant: One number for each step: touched kinks; for maxpools behind a
            ReLU those of positive value (-1 where they were not told apart); and those whose piece
            may change the gradient (-1 where that was not found out).
    """

    operation: str
    module: str
    elements: int = 0
    touched: list[int] = field(default_factory=list)
    nonzero: list[int] = field(default_factory=list)
    relevant: list[int] = field(default_factory=list)


@dataclass
class RunRecord:
    """One training run.

    Attributes:
        label: Network and activation.
        seed: Its seed.
        data: What it was trained on.
        settings: `Training` as plain data.
        steps: Steps done.
        looked: Steps judged.
        verdicts: How many steps got which verdict.
        theorems: How many steps were settled by which argument.
        reasons: For steps not proved right: number, verdict, reason.
        places: Kinks by operation and module.
        losses: Mean training loss of every epoch.
        accuracies: Mean training accuracy of every epoch.
        seconds: Time spent training, all included.
        audit_seconds: Time spent judging (without recording).
        finished: Whether the run is complete.
        numbers: Numbers of the judged steps (from 1), in order; empty while all were judged.
    """

    label: str
    seed: int
    data: str
    settings: dict[str, Any]
    steps: int = 0
    looked: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    theorems: dict[str, int] = field(default_factory=dict)
    reasons: list[tuple[int, str, str]] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    audit_seconds: float = 0.0
    finished: bool = False
    numbers: list[int] = field(default_factory=list)

    @property
    def judged(self) -> list[int]:
        """Numbers of the judged steps (from 1), in order."""
        if len(self.numbers) == self.looked:
            return list(self.numbers)
        # All of them; or, in records older than `numbers`, spread evenly.
        apart = max(1.0, self.steps / max(self.looked, 1))
        return [1 + int(i * apart) for i in range(self.looked)]

    def add(self, step: Step) -> None:
        """Write down one audited step."""
        self.steps += 1
        if not step.looked or step.verdict is None:
            self.numbers = self.judged
            return
        if self.numbers or self.looked + 1 < self.steps:
            self.numbers = [*self.judged, self.steps]
        self.looked += 1
        self.audit_seconds += step.seconds
        self.verdicts = dict(Counter(self.verdicts) + Counter([step.verdict.name]))
        self.theorems = dict(Counter(self.theorems) + Counter([step.theorem or "none"]))
        if step.verdict.correct is not True:
            self.reasons.append((self.steps, step.verdict.name, step.reason))
        seen = set()
        for kink in step.kinks:
            key = f"{kink.module}:{kink.operation}"
            place = self.places.get(key)
            if place is None:
                place = self.places[key] = Place(kink.operation, kink.module)
                self._pad(place, self.looked - 1)
            place.elements = max(place.elements, kink.elements)
            place.touched.append(kink.touched)
            place.nonzero.append(-1 if kink.nonzero is None else kink.nonzero)
            place.relevant.append(-1 if kink.relevant is None else kink.relevant)
            seen.add(key)
        for key, place in self.places.items():
            if key not in seen:
                self._pad(place, self.looked)

    @staticmethod
    def _pad(place: Place, length: int) -> None:
        for numbers in (place.touched, place.nonzero, place.relevant):
            numbers.extend([0] * (length - len(numbers)))

    def save(self, path: Path) -> None:
        """Write the record as JSON; a crash in between leaves the old file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".part")
        new.write_text(json.dumps({"version": VERSION, **asdict(self)}), encoding="utf-8")
        new.replace(path)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> RunRecord:
        """The inverse of `asdict`."""
        known = {k: v for k, v in data.items() if k != "version"}
        places = {k: Place(**v) for k, v in known.pop("places").items()}
        reasons = [(int(a), str(b), str(c)) for a, b, c in known.pop("reasons")]
        return cls(places=places, reasons=reasons, **known)

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read a record."""
        return cls.from_data(json.loads(path.read_text(encoding="utf-8")))
