"""TensorBoard: an audit's scalars as it goes, and a figure of layers and steps at the end."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from clarke.integrations.training import step_metrics
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from types import TracebackType

    from clarke import Audit, Report, Step

_LAYERS = 40
_BINS = 400


class TensorBoardLog:
    """Writes what an audit finds to a `torch.utils.tensorboard.SummaryWriter`.

    A context manager inside of the audit's own::

        with clarke.audit() as audit, TensorBoardLog(audit, SummaryWriter()):
            train()

    Scalars ``clarke/touched``, ``clarke/relevant``, ``clarke/wrong``, ``clarke/undecided`` (the
    last two count from the start) and ``clarke_layers/<module>`` (relevant kinks) at every judged
    call; at the end a figure of layers and steps and the summary as text.

    Args:
        audit: A running audit, or one that will run.
        writer: The SummaryWriter; flushed at the end, not closed.
        figure: Whether to draw the figure, which needs matplotlib.
    """

    def __init__(self, audit: Audit, writer: Any, *, figure: bool = True) -> None:
        self._audit = audit
        self._writer = writer
        self._figure = figure
        self._counts = {"wrong": 0, "undecided": 0}
        self._steps: list[tuple[int, dict[str, int]]] = []
        self._last = 0
        audit.subscribe(self._take, gradients=False)

    def finish(self) -> None:
        """Write the figure and the summary."""
        text = str(self._audit.summary())
        self._writer.add_text("clarke/summary", f"```\n{text}\n```", self._last)
        if self._figure and any(layers for _, layers in self._steps):
            self._writer.add_figure("clarke/layers", layers_figure(self._steps), self._last)
        self._writer.flush()

    def __enter__(self) -> TensorBoardLog:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()

    def _take(self, step: Step, _report: Report | None) -> None:
        self._last = step.number
        if not step.looked:
            return
        self._counts["wrong"] += Verdict.NOT_CLARKE in (step.verdict, step.joint)
        self._counts["undecided"] += step.correct is None
        for name, value in step_metrics(step, **self._counts).items():
            self._writer.add_scalar(name, value, step.number)
        layers: dict[str, int] = defaultdict(int)
        for kink in step.kinks:
            layers[kink.module or kink.operation] += kink.relevant or 0
        for layer, count in layers.items():
            self._writer.add_scalar(f"clarke_layers/{layer}", count, step.number)
        self._steps.append((step.number, dict(layers)))


def layers_figure(steps: list[tuple[int, dict[str, int]]]) -> Any:
    """A matplotlib figure: relevant kinks by layer (rows) and step (columns).

    Args:
        steps: Numbers of the calls with the relevant kinks of each layer.
    """
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    totals: dict[str, int] = defaultdict(int)
    for _, layers in steps:
        for layer, count in layers.items():
            totals[layer] += count
    names = sorted(totals, key=lambda name: -totals[name])[:_LAYERS]
    bins = min(_BINS, len(steps))
    values = np.zeros((len(names), bins))
    for i, (_, layers) in enumerate(steps):
        for row, name in enumerate(names):
            values[row, i * bins // len(steps)] += layers.get(name, 0)
    figure = Figure(figsize=(8, 1.2 + 0.25 * len(names)), layout="constrained")
    axes = figure.subplots()
    top = max(float(values.max()), 2.0)
    picture = axes.imshow(
        np.ma.masked_less(values, 1),
        aspect="auto",
        interpolation="nearest",
        norm=LogNorm(1, top),
        extent=(steps[0][0], steps[-1][0] + 1, len(names) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("backward call")
    figure.colorbar(picture, label="relevant kinks")
    return figure
