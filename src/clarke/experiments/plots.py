"""Plots of recorded runs and pictures of ties; matplotlib is loaded only here."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from clarke.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clarke.experiments.record import Place, RunRecord
    from clarke.experiments.tied_patches import TiedPatches

_BINS = 60
_POOL = "max_pool2d_with_indices"
_TAKEN, _RIVAL = "tab:cyan", "tab:orange"


def plot_all(records: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Draw what the records hold, one file for each network; returns the files.

    Raises:
        InputError: matplotlib is not installed.
    """
    plt = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for label in dict.fromkeys(r.label for r in records):
        own = [r for r in records if r.label == label and r.looked]
        if not own:
            continue
        pools = any(p.operation == _POOL for r in own for p in r.places.values())
        figure = _three(plt, own) if pools else _one(plt, own)
        made.append(_saved(plt, figure, folder / f"{label}.svg"))
    return made


def plot_patches(
    equal: Sequence[TiedPatches], different: Sequence[TiedPatches], title: str, path: Path
) -> Path:
    """Draw images whose patches tie, in the manner of the paper's Figure 1; returns the file.

    Raises:
        InputError: matplotlib is not installed.
    """
    plt = _pyplot()
    path.parent.mkdir(parents=True, exist_ok=True)
    count = max(len(equal), len(different), 2)
    figure = plt.figure(figsize=(2.3 * count, 8.6), layout="constrained")
    figure.suptitle(f"{title}\nblue: the element that AD follows, orange: another of equal value")
    heads = ("Equal patches: the choice does not matter", "Different patches: the choice matters")
    parts = figure.subfigures(2, 1, hspace=0.05)
    for part, head, examples in zip(parts, heads, (equal, different), strict=True):
        none = "" if examples else " (none in the steps looked at)"
        part.suptitle(head + none, x=0.02, ha="left", fontsize=11, weight="bold")
        axes = part.subplots(2, count, squeeze=False, gridspec_kw={"height_ratios": [2, 1]})
        for example, above, below in zip_longest(examples, axes[0], axes[1]):
            for own in (above, below):
                own.set(xticks=[], yticks=[])
                own.set_frame_on(example is not None and own is above)
            if example is not None:
                _picture(plt, above, example)
                _pair(plt, below, example)
    return _saved(plt, figure, path)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise InputError(
            "Plots need matplotlib: pip install 'clarke[plot]', or pass --no-plots."
        ) from error
    return plt


def _saved(plt: Any, figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return path


# ------------------------------------------------------------------------------ over training


def _three(plt: Any, records: Sequence[RunRecord]) -> Any:
    """Tied outputs, relevant ties by maxpool, and touched pointwise kinks over training."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    pools = sorted({p.module for r in records for p in r.places.values() if p.operation == _POOL})
    smallest = 1.0
    for number, name in enumerate(pools):
        own = [(r, p) for r in records for p in r.places.values() if p.module == name]
        look: dict[str, Any] = {"label": name.rpartition(".")[2], "color": f"C{number}"}
        steps, share = _mean_share(own)
        smallest = min([smallest, *share[share > 0]])
        left.plot(steps, share, marker="." if len(steps) < 20 else "", **look)
        for i, (r, p) in enumerate(own):
            again = {**look, "label": look["label"] if i == 0 else None}
            middle.step(*_so_far(r, p.relevant), where="post", alpha=0.8, **again)
    left.set_yscale("symlog", linthresh=smallest)
    left.set_ylim(bottom=0)
    left.set(xlabel="step", ylabel="%", title="outputs tied at a positive value")
    middle.set(xlabel="step", ylabel="steps so far", title="steps with a tie that matters")
    middle.set_ylim(0, max(1.05, middle.get_ylim()[1]))
    middle.yaxis.get_major_locator().set_params(integer=True)
    left.legend(title="maxpool", fontsize="small", title_fontsize="small")
    _touches(right, records, "seed")
    _head(figure, records)
    return figure


def _one(plt: Any, records: Sequence[RunRecord]) -> Any:
    """Touched pointwise kinks over training."""
    figure, axes = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    _touches(axes, records, "seed")
    _head(figure, records)
    return figure


def _head(figure: Any, records: Sequence[RunRecord]) -> None:
    first = records[0]
    runs = "1 run" if len(records) == 1 else f"{len(records)} runs"
    figure.suptitle(f"{first.label} on {first.data}, {runs}")


def _touches(axes: Any, records: Sequence[RunRecord], name: str) -> None:
    """Steps with a touched activation so far, run by run."""
    places = [p for r in records for p in r.places.values()]
    for r in records:
        lists = [p.touched for p in r.places.values() if p.operation != _POOL]
        touched = [sum(c) for c in zip(*lists, strict=True)] or [0] * r.looked
        axes.step(*_so_far(r, touched), where="post", label=f"{name} {r.seed}")
    if not any(n for p in places if p.operation != _POOL for n in p.touched):
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
    axes.set(xlabel="step", ylabel="steps so far", title="steps with an activation at a kink")
    axes.set_ylim(0, max(1.05, axes.get_ylim()[1]))
    axes.yaxis.get_major_locator().set_params(integer=True)
    if len(records) > 1:
        axes.legend(fontsize="small")


def _so_far(record: RunRecord, counts: Sequence[int]) -> tuple[Any, Any]:
    """(numbers of the judged steps, how many of them so far had a positive count)."""
    return np.array([0, *record.judged]), np.cumsum([0, *(n > 0 for n in counts)])


def _mean_share(own: Sequence[tuple[RunRecord, Place]]) -> tuple[Any, Any]:
    """(middles of stretches of training, mean percentage of outputs tied there) over the runs."""
    last = max(r.steps for r, _ in own)
    edges = np.linspace(0, last, min(_BINS, last) + 1)
    total, count = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for r, place in own:
        known = np.array(place.nonzero, dtype=float)
        at = np.clip(np.searchsorted(edges, r.judged) - 1, 0, len(total) - 1)
        told = known >= 0  # the others were not told apart from ties at zero
        np.add.at(total, at[told], 100 * known[told] / max(place.elements, 1))
        np.add.at(count, at[told], 1)
    some = count > 0
    return (edges[:-1] + edges[1:])[some] / 2, total[some] / count[some]


# ------------------------------------------------------------------------------ images


def _picture(plt: Any, axes: Any, example: TiedPatches) -> None:
    """The image with the two patches framed."""
    axes.imshow(_shown(example.image), interpolation="nearest")
    # Where the frames would hide each other, the second is a little larger.
    for (y, x), colour, grown in ((example.rival, _RIVAL, 0.35), (example.taken, _TAKEN, 0.0)):
        corner = (x - 1.5 - grown, y - 1.5 - grown)
        size = 3 + 2 * grown
        frame = plt.Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=1.8)
        frame.set_clip_on(False)
        axes.add_patch(frame)
    axes.set_title(f"step {example.step}, channel {example.channel}", fontsize=9)


def _pair(plt: Any, axes: Any, example: TiedPatches) -> None:
    """The two patches side by side."""
    for i, (patch, colour) in enumerate(zip(example.patches, (_TAKEN, _RIVAL), strict=True)):
        left = 4 * i
        axes.imshow(_shown(patch), extent=(left, left + 3, 3, 0), interpolation="nearest")
        axes.add_patch(
            plt.Rectangle((left, 0), 3, 3, fill=False, edgecolor=colour, linewidth=3, clip_on=False)
        )
    axes.set_xlim(-0.2, 7.2)
    axes.set_ylim(3.2, -0.2)
    pixels = int((example.patches[0] != example.patches[1]).any(0).sum())
    said = "equal" if example.equal else f"{pixels} of 9 pixels differ"
    axes.set_title(f"both {example.value:.4g}; {said}", fontsize=9)


def _shown(image: Any) -> Any:
    """(c, h, w) in [-1, 1] as (h, w, 3) in [0, 1]."""
    found = ((image + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    return found if found.shape[2] == 3 else np.repeat(found[..., :1], 3, axis=2)
