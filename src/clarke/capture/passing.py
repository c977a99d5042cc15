"""Operations that are not recorded: of opaque tensors, and where clarke's own part failed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from clarke.capture.arguments import tensors_among
from clarke.capture.binding import Binding
from clarke.capture.live import Node
from clarke.capture.opaque import described
from clarke.errors import in_a_line

if TYPE_CHECKING:
    from types import FrameType

_FOLDER: Final = str(Path(__file__).parent)
_FAILED: Final = (
    "clarke itself failed while recording this program ({}). The training is not affected; please "
    "report it with the lines of the program."
)


class _Failed(NamedTuple):
    """How far an operation had come.

    Attributes:
        operation: It is the operation that raised.
        ran: It had been run.
        out: What it had returned.
    """

    operation: bool
    ran: bool = False
    out: Any = None


def _how_far(error: BaseException, func: Any) -> _Failed:
    """What the frames tell through which an exception came.

    Args:
        error: It, as caught by the handler of the operation.
        func: The operation, which the handler keeps what it returned of as ``out``.
    """
    own: list[FrameType] = []
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename.startswith(_FOLDER):
            own.append(frame)
        elif frame.f_locals.get("self") is func:
            return _Failed(operation=True)
        trace = trace.tb_next
    for frame in own:
        if "out" in frame.f_locals:
            return _Failed(operation=False, ran=True, out=frame.f_locals["out"])
    return _Failed(operation=False)


class Passing(Binding):
    """Lets operations pass; arguments as of `Reading`.

    Attributes:
        paused: Nothing is recorded, for a while.
        stands_aside: Why nothing at all is recorded.
        failure: The same, where it is our own fault.
    """

    paused = False
    stands_aside = ""
    failure = ""
    _raised: Exception | None = None  # by an operation that was run without a step of Python's

    def _passed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation that is not recorded; of those on opaque tensors the first is named.

        Whatever is computed of their values may speak to other processes, which do not answer.
        """
        if self.paused or self.stands_aside:
            return func(*args, **kwargs)
        given = tensors_among(args, kwargs)
        varied = any(t.requires_grad for t in given)
        kind = next(filter(None, map(described, given)), "")
        out = func(*args, **kwargs)
        if varied and torch.is_grad_enabled():
            self.count += 1
            node = Node(self.count, func, self.places.here()[0])
            node.differentiated = True
            self.opaque = self.opaque or node
            for value in out if isinstance(out, (list, tuple)) else (out,):
                if isinstance(value, torch.Tensor) and self._slot(value) is None:
                    slot = self._new_slot(value, node.location)
                    slot.producer, slot.opaque = node, slot.opaque or kind
                    node.outputs = (*node.outputs, slot.number)
        return out

    def _rescued(
        self, error: Exception, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What the program gets where something was raised: by its operation, or by us."""
        own, self._raised = self._raised, None
        how = _how_far(error, func)
        if how.operation or own is error:
            raise error
        self.failure = self.stands_aside = _FAILED.format(in_a_line(error))
        return how.out if how.ran else func(*args, **kwargs)

    def recover(self) -> None:
        """Record again where clarke's own part failed: from nothing, since its record is torn."""
        if self.failure:
            self.failure = self.stands_aside = ""
            self.begin_anew()
