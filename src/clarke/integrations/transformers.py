"""A callback for Transformers' Trainer: ``Trainer(..., callbacks=[ClarkeCallback()])``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clarke import OnWrong
from clarke.integrations.training import TrainingAudit
from clarke.numerics import STEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clarke import Report


def _base() -> Any:
    """Transformers' class of callbacks; imported here, so that types do not depend on it."""
    try:
        return importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        raise ImportError(
            "clarke.integrations.transformers needs Transformers: "
            "pip install 'clarke[transformers]'."
        ) from error


class ClarkeCallback(_base()):  # type: ignore[misc]  # known when it is imported
    """Judges every backward call of ``trainer.train()``.

    Adds ``clarke/touched``, ``clarke/relevant``, ``clarke/wrong`` and ``clarke/undecided`` to the
    trainer's log history, and writes a run folder for ``clarke report``. Transformers tells
    callbacks nothing when training raises: use it as a context manager around ``train()`` where
    that can happen and the process goes on.

    Args:
        on_wrong: As `clarke.audit`'s.
        every: Look at every so many backward calls only.
        seconds: Time limit of judging one call; None for no limit.
        folder: Run folder, or None for a new one below ``runs/``; "" for none.

    Attributes:
        training: The audit with its folder; ``training.summary()`` after the training.
    """

    def __init__(
        self,
        on_wrong: OnWrong | str | Callable[[Report], None] = OnWrong.WARN,
        *,
        every: int = 1,
        seconds: float | None = STEP_SECONDS,
        folder: Path | str | None = None,
    ) -> None:
        super().__init__()
        self.training = TrainingAudit(
            "transformers", on_wrong=on_wrong, every=every, seconds=seconds, folder=folder
        )

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start watching."""
        self.training.open()

    def on_log(
        self, _args: Any, state: Any, *_: Any, logs: dict[str, Any] | None = None, **__: Any
    ) -> None:
        """Add the numbers of the last call to what is logged."""
        metrics = self.training.metrics()
        if logs is not None:
            logs.update(metrics)
        if state.log_history:
            state.log_history[-1].update(metrics)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop watching."""
        self.training.close()

    def __enter__(self) -> ClarkeCallback:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.training.close("finished" if kind is None else kind.__name__)
