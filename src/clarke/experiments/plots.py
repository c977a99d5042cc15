"""Plots of recorded runs; matplotlib is loaded only here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clarke.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clarke.experiments.record import RunRecord

_BINS = 100
_POOL = "max_pool2d_with_indices"


def plot_all(records: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Draw what the records hold, one file for each kind of plot; returns the files.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise InputError(
            "Plots need matplotlib: pip install 'clarke[plot]', or pass --no-plots."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for label in dict.fromkeys(r.label for r in records):
        own = [r for r in records if r.label == label]
        pools = any(p.operation == _POOL for r in own for p in r.places.values())
        figure = _ties(plt, own) if pools else _touches(plt, own)
        if figure is None:
            continue
        path = folder / f"{label}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        made.append(path)
    return made


def _ties(plt: Any, records: Sequence[RunRecord]) -> Any:
    """Tied outputs and relevant ties by maxpool over training."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    first = records[0]
    pools = sorted(p.module for p in first.places.values() if p.operation == _POOL)
    for name in pools:
        rows, relevant = [], []
        for r in records:
            place = next((p for p in r.places.values() if p.module == name), None)
            if place is None:
                continue
            known = np.array([n if n >= 0 else np.nan for n in place.nonzero], dtype=float)
            rows.append(_binned(100 * known / max(place.elements, 1)))
            relevant.append(np.cumsum(np.array(place.relevant) > 0))
        shortest = min(len(r) for r in rows)
        share = np.nanmean([r[:shortest] for r in rows], axis=0)
        steps = np.linspace(0, min(len(c) for c in relevant), shortest)
        left.plot(steps, share, label=name)
        length = min(len(c) for c in relevant)
        right.plot(np.mean([c[:length] for c in relevant], axis=0), label=name)
    left.set(xlabel="step", ylabel="outputs tied at a positive value, %", yscale="symlog")
    left.set_yscale("symlog", linthresh=1e-4)
    right.set(xlabel="step", ylabel="steps with a relevant tie so far")
    right.legend(fontsize="small")
    figure.suptitle(f"{first.label}, {first.data}, {len(records)} run(s)")
    return figure


def _touches(plt: Any, records: Sequence[RunRecord]) -> Any:
    """Touched pointwise kinks over training."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for r in records:
        lists = [p.touched for p in r.places.values()]
        touched = np.array([sum(c) for c in zip(*lists, strict=True)] or [0] * r.looked)
        axes.plot(np.cumsum(touched > 0), label=f"seed {r.seed}")
    axes.set(xlabel="step", ylabel="steps with a touched kink so far")
    axes.legend(fontsize="small")
    axes.set_title(f"{records[0].label}, {records[0].data}")
    return figure


def _binned(values: Any) -> Any:
    """Means over up to `_BINS` stretches of a series."""
    parts = np.array_split(values, min(_BINS, len(values)))
    return np.array([np.nan if np.isnan(p).all() else np.nanmean(p) for p in parts])
