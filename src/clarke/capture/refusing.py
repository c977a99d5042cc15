"""A recorder of what was compiled as it was written; it takes nothing that really is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clarke.capture.recorder import Recorder
from clarke.errors import CaptureError
from clarke.torch_compiled import AsWritten, runs_as_written, runs_compiled
from clarke.torch_private import never_trace, watching_dynamo
from clarke.undo import at_the_end

if TYPE_CHECKING:
    from typing_extensions import Self


class RefusingRecorder(Recorder):
    """Raises a `CaptureError` as soon as a program really runs compiled.

    What is compiled is no longer the program that the user wrote, and hides what it computes. So
    programs under torch.compile run as they were written while this records; unless they insist.

    Attributes:
        refusal: What has been raised; torch may have followed it up with an exception of its own.
        compiled: Something ran that runs compiled where nobody records.
    """

    refusal: CaptureError | None = None
    compiled = False
    _uncompiled: AsWritten | None = None

    def __enter__(self) -> Self:
        never_trace(RefusingRecorder.__torch_dispatch__, calls_too=False)
        never_trace(RefusingRecorder._unless_written, calls_too=True)
        self._uncompiled = AsWritten()
        at_the_end(self._uncompiled.stop)
        self._uncompiled.__enter__()
        return super().__enter__()

    def stop(self) -> None:
        """Record nothing any more; what was compiled runs compiled again."""
        if self._uncompiled is not None:
            self._uncompiled.stop()
        super().stop()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Asked by dynamo: if it compiled nothing here, it would never again."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        watched = watching_dynamo() not in (None, False)
        if not self.paused and (watched or (not self.compiled and runs_compiled())):
            self._unless_written(watched=watched)
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _unless_written(self, *, watched: bool) -> None:
        if not watched and runs_as_written():
            self.compiled = self._uncompiled is not None and self._uncompiled.forced
            return
        self.refusal = CaptureError(
            f"{self.places.here()[0]} runs under torch.compile in a way that cannot be switched "
            "off; the compiled program cannot be watched. Check the uncompiled function or module "
            "(model._orig_mod), or wrap the call in torch.compiler.set_stance('force_eager')."
        )
        raise self.refusal
