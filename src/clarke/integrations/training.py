"""What the callbacks of training frameworks share: an audit with a run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarke import OnWrong, Verdict, audit
from clarke.integrations.recording import new_folder, of_rank, record
from clarke.numerics import STEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke import Audit, Report, Step, Summary
    from clarke.report.runs import RunWriter


class TrainingAudit:
    """An audit that a framework opens when training starts and closes when it ends.

    Args:
        name: Of the program, for the run folder.
        on_wrong: As `clarke.audit`'s.
        every: Look at every so many backward calls only.
        seconds: Time limit of judging one call; None for no limit.
        folder: Run folder, or None for a new one below ``runs/``; "" for none.
    """

    def __init__(
        self,
        name: str,
        *,
        on_wrong: OnWrong | str | Callable[[Report], None] = OnWrong.WARN,
        every: int = 1,
        seconds: float | None = STEP_SECONDS,
        folder: Path | str | None = None,
    ) -> None:
        self._name = name
        self._on_wrong = on_wrong
        self._every = every
        self._seconds = seconds
        self._wanted = folder
        self._writer: RunWriter | None = None
        self._started = 0.0
        self._last: Step | None = None
        self._counts = {"wrong": 0, "undecided": 0}
        self._open = False
        self.audit: Audit | None = None
        self.folder: Path | None = None

    def open(self) -> Audit:
        """Start watching; an audit left open by an earlier training that failed is closed."""
        self.close("replaced by another training")
        watch = audit(self._on_wrong, every=self._every, seconds=self._seconds)
        watch.subscribe(self._take, gradients=False)
        if self._wanted != "":
            wanted = self._wanted
            self.folder = of_rank(Path(wanted)) if wanted else new_folder(self._name)
            how = self._on_wrong
            settings = {
                "program": self._name,
                "every": self._every,
                "seconds": self._seconds,
                "on_wrong": how.name.lower() if isinstance(how, OnWrong) else str(how),
            }
            self._writer = record(watch, self.folder, settings)
        watch.__enter__()
        self.audit, self._open, self._started = watch, True, time.perf_counter()
        return watch

    def close(self, ended: str = "finished") -> None:
        """Stop watching and finish the run folder; does nothing when not open."""
        if self.audit is None or not self._open:
            return
        self._open = False
        self.audit.__exit__(None, None, None)
        if self._writer is not None:
            seconds = time.perf_counter() - self._started
            self._writer.finish({"ended": ended, "seconds": seconds})
            self._writer = None

    def summary(self) -> Summary | None:
        """The audit's summary so far; None before training has started."""
        return None if self.audit is None else self.audit.summary()

    def metrics(self) -> dict[str, float]:
        """Numbers to log: kinks in the last call, wrong and undecided calls so far."""
        return step_metrics(self._last, **self._counts)

    def _take(self, step: Step, _report: Report | None) -> None:
        self._last = step
        self._counts["wrong"] += Verdict.NOT_CLARKE in (step.verdict, step.joint)
        self._counts["undecided"] += step.looked and step.correct is None


def step_metrics(step: Step | None, **counts: float) -> dict[str, float]:
    """A step's numbers under the names that loggers get."""
    kinks: tuple[Any, ...] = () if step is None else step.kinks
    found = {
        "touched": float(sum(k.touched for k in kinks)),
        "relevant": float(sum(k.relevant or 0 for k in kinks)),
        **{name: float(count) for name, count in counts.items()},
    }
    return {f"clarke/{name}": value for name, value in found.items()}
