"""Notice hooks that may change gradients on their way.

A hook on an intermediate tensor or on a node of autograd's graph can replace the gradient that
passes, and nothing in the recorded operations says so. A verdict from the record alone would then
be about another gradient than the user's; such calls are judged by replaying the program and
comparing. Autograd lists its hooks nowhere, so they are noted when they are registered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import _HookMixin

from clarke.torch_sharded import is_of_sharding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from clarke.capture import Recorder


class _Unnoted:
    """A block whose registrations are clarke's own."""

    def __init__(self, spy: HookSpy) -> None:
        self._spy = spy

    def __enter__(self) -> None:
        self._spy.quiet = True

    def __exit__(self, *_exc: object) -> None:
        self._spy.quiet = False


class HookSpy:
    """Notes registrations while it is open; used as a context manager.

    Attributes:
        unnoted: A context manager: what is registered in its block is not noted.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._slots: set[int] = set()
        self._nodes = False
        self._on_tensor: Any = None
        self._on_node: Any = None
        self._own: tuple[Any, Any] = (self, self)  # what stands in for torch's
        self.quiet = False
        self.unnoted = _Unnoted(self)

    def __enter__(self) -> Self:
        on_tensor, on_node = torch.Tensor.register_hook, _HookMixin.__dict__["_register_hook"]

        def register_hook(tensor: torch.Tensor, hook: Callable[..., Any]) -> Any:
            if not (tensor.is_leaf or self.quiet or is_of_sharding(hook)):
                self._note(tensor)
            return on_tensor(tensor, hook)

        def _register_hook(hooks: Any, hook: Callable[..., Any]) -> Any:
            self._nodes = self._nodes or not self.quiet
            return on_node.__func__(hooks, hook)

        self._on_tensor, self._on_node = on_tensor, on_node
        self._own = register_hook, _register_hook
        torch.Tensor.register_hook = register_hook  # type: ignore[method-assign]
        _HookMixin._register_hook = staticmethod(_register_hook)  # type: ignore[method-assign]  # noqa: SLF001 - no public name
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Put torch's own functions back, where that is to be done."""
        if torch.Tensor.register_hook is self._own[0]:
            torch.Tensor.register_hook = self._on_tensor  # type: ignore[method-assign]
        if _HookMixin._register_hook is self._own[1]:  # noqa: SLF001 - no public name
            _HookMixin._register_hook = self._on_node  # type: ignore[method-assign]  # noqa: SLF001 - as above

    def _note(self, tensor: torch.Tensor) -> None:
        slot = self._recorder.slot_of(tensor)
        if slot is None:
            self._nodes = True  # nothing is known of where it stands
        else:
            self._slots.add(slot.number)

    def reaches(self, slots: Iterable[int]) -> bool:
        """Whether a hook may change a gradient of one of these values.

        Of a hook on a node it is not known to which graph it belongs: from then on, to all.

        Args:
            slots: Their numbers in the record.
        """
        return self._nodes or not self._slots.isdisjoint(slots)
