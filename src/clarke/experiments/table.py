"""The paper's tables, its figures beside ours."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from clarke.experiments.models import Activation
from clarke.experiments.scenario import Network, paper_layers, paper_touches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.experiments.record import Place, RunRecord

_POOL = "max_pool2d_with_indices"


@dataclass(frozen=True)
class Table:
    """A table as text: a title, column heads and rows of equal length."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [f"**{self.title}**", "", _line(self.heads), _line(["---"] * len(self.heads))]
        lines += [_line(row) for row in self.rows]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)


def _heads(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def verdict_table(records: Sequence[RunRecord]) -> Table:
    """What became of every step, run by run."""
    rows = []
    for r in records:
        proved = sum(r.verdicts.get(v, 0) for v in ("SMOOTH", "BOULIGAND", "CLARKE"))
        others = {k: v for k, v in r.verdicts.items() if k not in ("SMOOTH", "BOULIGAND", "CLARKE")}
        rows.append(
            (
                r.label,
                str(r.seed),
                r.data,
                f"{r.steps}" if r.finished else f"{r.steps} (unfinished)",
                str(r.looked),
                str(r.verdicts.get("SMOOTH", 0)),
                str(r.verdicts.get("BOULIGAND", 0) + r.verdicts.get("CLARKE", 0)),
                f"{proved / r.looked:.2%}" if r.looked else "-",
                ", ".join(f"{v} {k}" for k, v in others.items()) or "0",
                f"{r.accuracies[-1]:.3f}" if r.accuracies else "-",
            )
        )
    return Table(
        "Verdicts",
        _heads(
            "network|seed|data|steps|judged|smooth|at a kink, proved right|proved right|others|"
            "training accuracy"
        ),
        tuple(rows),
    )


def touched_steps(record: RunRecord) -> int:
    """Steps in which any pointwise kink was touched."""
    lists = [p.touched for p in record.places.values() if p.operation != _POOL]
    return sum(any(counts) for counts in zip(*lists, strict=True)) if lists else 0


def scenario_one(records: Sequence[RunRecord]) -> Table:
    """Steps in which an activation's input is at a kink, mean over the runs."""
    rows = []
    for activation in Activation:
        own = [r for r in records if r.label == f"{Network.FNN.value}-{activation.value}"]
        if not own:
            continue
        touched = [touched_steps(r) for r in own]
        wrong = sum(len(r.reasons) for r in own)
        rows.append(
            (
                activation.value,
                str(len(own)),
                f"{mean(r.steps for r in own):.0f}",
                f"{paper_touches(activation):.1f}",
                f"{mean(touched):.1f}",
                ", ".join(map(str, touched)),
                str(wrong),
            )
        )
    return Table(
        "Scenario 1: steps with a touched kink",
        _heads("activation|runs|steps per run|paper|ours|run by run|steps not proved right"),
        tuple(rows),
    )


def scenario_two(network: Network, records: Sequence[RunRecord]) -> Table:
    """Ties by maxpool layer in the paper's layout, mean over the runs."""
    own = [r for r in records if r.label == network.value]
    layers = paper_layers(network)
    pools = _pools(own)
    rows = []
    for i, paper in enumerate(layers):
        places = [p[i] for p in pools if i < len(p)]
        looked = [r.looked for r, p in zip(own, pools, strict=True) if i < len(p)]
        tied = [_tied_share(p) for p in places]
        known = [t for t in tied if t is not None]
        sizes = [mean(kept) for p in places if (kept := [n for n in p.relevant if n > 0])]
        steps = [sum(n > 0 for n in p.relevant) for p in places]
        share = mean(s / n for s, n in zip(steps, looked, strict=True) if n) if looked else 0.0
        rows.append(
            (
                str(i + 1),
                f"{paper.outputs:,}",
                f"{max((p.elements for p in places), default=0):,}",
                f"{paper.tied:g}",
                f"{mean(known):.2g}" if known else "-",
                f"{paper.steps:g}",
                f"{mean(steps):.1f} of {mean(looked):.0f}" if steps else "-",
                f"{paper.steps / 7820:.2%}",
                f"{share:.2%}",
                "-" if paper.size is None else f"{paper.size:.2f}",
                f"{mean(sizes):.2f}" if sizes else "-",
            )
        )
    return Table(
        f"Scenario 2: {network.value}, {len(own)} run{'s' if len(own) != 1 else ''}",
        _heads(
            "maxpool|outputs, paper|ours|tied %, paper|ours|steps with relevant ties, paper|ours|"
            "share, paper|ours|size then, paper|ours"
        ),
        tuple(rows),
        ("Tied: of positive value. Size: outputs with a relevant tie, over the steps with any.",),
    )


def _pools(records: Sequence[RunRecord]) -> list[list[Place]]:
    """For every run its maxpools in the order of their names, which is that of the network."""
    return [
        sorted((p for p in r.places.values() if p.operation == _POOL), key=lambda p: p.module)
        for r in records
    ]


def _tied_share(place: Place) -> float | None:
    known = [n for n in place.nonzero if n >= 0]
    return 100 * mean(known) / place.elements if known and place.elements else None
