"""Operations that are recorded when somebody reads what they made, which as a rule nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from clarke.capture.live import Slot
    from clarke.capture.trace import Location


class Copy(NamedTuple):
    """What autograd itself, or ``.data``, has detached: an operation that is yet to be recorded.

    Of every result that autograd saves it makes one, which nothing else reads.

    Attributes:
        of: What it is a copy of.
        number: That of the operation.
        epoch: How many backward calls had freed their graph.
        location: Where it was made.
    """

    of: Slot
    number: int
    epoch: int
    location: Location


class View(NamedTuple):
    """A view made without gradients of what has one: an operation that is yet to be recorded.

    Of every weight a linear layer makes one, which in an evaluation nothing else reads. What it
    holds is what lies there whenever somebody asks.

    Attributes:
        func: The operator.
        args: Its arguments.
        number: That of the operation.
        epoch: How many backward calls had freed their graph.
    """

    func: Any
    args: tuple[Any, ...]
    number: int
    epoch: int
