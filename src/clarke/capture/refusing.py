"""A recorder that takes no compiled programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clarke.capture.recorder import Recorder
from clarke.errors import CaptureError
from clarke.torch_private import never_trace, runs_compiled, watching_dynamo

if TYPE_CHECKING:
    from typing_extensions import Self


class RefusingRecorder(Recorder):
    """Raises a `CaptureError` as soon as a program under torch.compile runs.

    What is compiled is no longer the program that the user wrote, and hides what it computes.

    Attributes:
        refusal: What has been raised; torch may have followed it up with an exception of its own.
    """

    refusal: CaptureError | None = None

    def __enter__(self) -> Self:
        never_trace(RefusingRecorder.__torch_dispatch__, calls_too=False)
        never_trace(RefusingRecorder._refuse, calls_too=True)
        return super().__enter__()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Asked by dynamo: if it compiled nothing here, it would never again."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        watched = watching_dynamo() not in (None, False)
        if not self.paused and (watched or runs_compiled()):
            self._refuse()
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _refuse(self) -> None:
        self.refusal = CaptureError(
            f"{self.places.here()[0]} runs under torch.compile; the compiled program cannot be "
            "watched. Check the uncompiled function or module (model._orig_mod), or wrap the call "
            "in torch.compiler.set_stance('force_eager')."
        )
        raise self.refusal
