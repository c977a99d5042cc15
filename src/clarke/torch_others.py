"""What else may be at work on a program that clarke watches, and how clarke keeps out of its way.

Modes that look at a program instead of running it, tensors whose classes compute by code of their
own or that hold no values, tensors that change places. Some of it goes by names that
torch does not promise to keep; each part says what is lost without them.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from clarke.torch_private import put_on

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# --- tensors -------------------------------------------------------------------------------------

PLAIN: Final = (torch.Tensor, torch.nn.Parameter)
_NO_CODE: Final[Any] = torch.Tensor.__torch_dispatch__


def computes_itself(kind: type) -> bool:
    """Whether tensors of a type compute by code of their own, which operations do not tell."""
    return getattr(kind, "__torch_dispatch__", _NO_CODE) is not _NO_CODE


def is_opaque(tensor: torch.Tensor) -> bool:
    """Whether a tensor shows no values: it has none, several tensors, or code of its own."""
    kind = type(tensor)
    return (kind not in PLAIN and computes_itself(kind)) or tensor.is_meta or tensor.is_nested


class Weak(weakref.ref[torch.Tensor]):
    """A weak reference of clarke's own to a tensor: torch swaps such tensors nevertheless."""

    __slots__ = ()


class Swaps:
    """Lets `torch.utils.swap_tensors` swap tensors that clarke refers to; a context manager.

    It refuses tensors to which there are weak references, for whoever holds one would find another
    tensor. `module.to` swaps parameters where it is told to, or where they are of a class of their
    own. What clarke knows of a tensor it holds against its memory whenever it is read. Where torch
    asks otherwise, such a swap fails in the user's program.
    """

    def __init__(self) -> None:
        self._before: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(weakref, name)

    def getweakrefs(self, value: Any) -> list[Any]:
        """The weak references to an object that are not clarke's."""
        return [r for r in weakref.getweakrefs(value) if not isinstance(r, Weak)]

    def __enter__(self) -> None:
        self._before = vars(torch.utils).get("weakref")
        if self._before is not None:
            vars(torch.utils)["weakref"] = self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Put back what stood there; also where that has been done, or was never needed."""
        if vars(torch.utils).get("weakref") is self:
            vars(torch.utils)["weakref"] = self._before


# --- modes ---------------------------------------------------------------------------------------

# How many dispatch modes there are; inside the handler of one, how many below it.
modes_below: Final[Any] = torch._C._len_torch_dispatch_stack  # noqa: SLF001 - has no public name
_mode_at: Final[Any] = torch._C._get_dispatch_stack_at  # noqa: SLF001 - as above
_mode: Final[Any] = torch._C._get_dispatch_mode  # noqa: SLF001 - as above
_KINDS: Final = tuple(torch._C._TorchDispatchModeKey.__members__.values())  # noqa: SLF001 - as above
_functions: Final[Any] = torch._C._len_torch_function_stack  # noqa: SLF001 - as above
_seen: Final[Any] = torch._C._is_torch_function_enabled  # noqa: SLF001 - as above
_seeing: Final[Any] = getattr(torch._C, "_EnableTorchFunction", None)


def put_below_others(mode: Any, kind: type) -> None:
    """Put a dispatch mode that has been entered below all but those of a kind."""
    stack = [_mode_at(i) for i in range(modes_below())]
    own = [i for i, m in enumerate(stack) if isinstance(m, kind) and m is not mode]
    put_on(mode, own[-1] + 1 if own else 0)


def is_looked_at() -> bool:
    """Whether torch is looking at a program (fake values, a trace), not running it.

    Such modes stand below all others; without their names none is found.
    """
    return bool(modes_below()) and any(_mode(kind) is not None for kind in _KINDS)


def shows_functions(tensors: Any) -> bool:
    """Whether what is read of some tensors would be shown to somebody (``__torch_function__``)."""
    return _functions() > 0 or any(type(t) not in PLAIN for t in tensors)


def shown(function: Callable[..., T]) -> Callable[..., T]:
    """A function that is shown to modes and classes of tensors as it would be now.

    Called where `torch._C.DisableTorchFunction` keeps clarke's own from them. A torch without the
    opposite of that does not show them what autograd's hooks compute.
    """
    if _seeing is None or not _seen():
        return function

    def call(*args: Any, **kwargs: Any) -> T:
        with _seeing():
            return function(*args, **kwargs)

    return call


def is_accompanied() -> bool:
    """Whether some mode of the user's would see what clarke computes."""
    return bool(modes_below() or _functions())
