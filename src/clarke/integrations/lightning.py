"""A Lightning callback: ``Trainer(callbacks=[ClarkeCallback()])``."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from clarke import OnWrong
from clarke.integrations.training import TrainingAudit
from clarke.numerics import STEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clarke import Report


def _base() -> Any:
    """Lightning's class of callbacks. It has two names, and each trainer takes its own only."""
    names = ["lightning.pytorch", "pytorch_lightning"]
    if names[0] not in sys.modules and names[1] in sys.modules:
        names.reverse()
    for name in names:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name).Callback
    raise ImportError(
        "clarke.integrations.lightning needs Lightning: pip install 'clarke[lightning]'."
    )


class ClarkeCallback(_base()):  # type: ignore[misc]  # known when it is imported
    """Judges every backward call of ``trainer.fit``.

    Logs ``clarke/touched``, ``clarke/relevant``, ``clarke/wrong`` and ``clarke/undecided`` after
    each batch, and writes a run folder for ``clarke report``.

    Args:
        on_wrong: As `clarke.audit`'s.
        every: Look at every so many backward calls only.
        seconds: Time limit of judging one call; None for no limit.
        folder: Run folder, or None for a new one below ``runs/``; "" for none.
        log: Whether to log.

    Attributes:
        training: The audit with its folder; ``training.summary()`` after the fit.
    """

    def __init__(
        self,
        on_wrong: OnWrong | str | Callable[[Report], None] = OnWrong.WARN,
        *,
        every: int = 1,
        seconds: float | None = STEP_SECONDS,
        folder: Path | str | None = None,
        log: bool = True,
    ) -> None:
        super().__init__()
        self.training = TrainingAudit(
            "lightning", on_wrong=on_wrong, every=every, seconds=seconds, folder=folder
        )
        self._log = log

    def on_train_start(self, *_: Any) -> None:
        """Start watching."""
        self.training.open()

    def on_train_batch_end(self, _trainer: Any, pl_module: Any, *_: Any) -> None:
        """Log the batch's numbers."""
        if self._log:
            pl_module.log_dict(self.training.metrics(), batch_size=1)

    def on_train_end(self, *_: Any) -> None:
        """Stop watching."""
        self.training.close()

    def on_exception(self, _trainer: Any, _module: Any, exception: BaseException) -> None:
        """Stop watching when training fails or is interrupted."""
        self.training.close(f"{type(exception).__name__}: {exception}")
