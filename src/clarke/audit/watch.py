"""The gradient of one backward call alone, leaf by leaf, whatever ``.grad`` already holds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.judge import quietly
from clarke.errors import InputError
from clarke.rerun import plain
from clarke.torch_others import is_accompanied
from clarke.torch_private import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _hooks_of(leaf: torch.Tensor) -> dict[int, Any] | None:
    """What `register_hook` adds to; torch offers it under no public name."""
    found: dict[int, Any] | None = leaf._backward_hooks  # noqa: SLF001 - as above
    return found


def are_fresh(leaves: Sequence[torch.Tensor]) -> bool:
    """Whether ``.grad`` will hold just what the next backward call computes, leaf by leaf.

    Not if it holds something already, and not if a hook may change or clear it on the way.
    """
    for leaf in leaves:
        if leaf.grad is not None or leaf._backward_hooks:  # noqa: SLF001 - torch has no public name for it
            return False
        if leaf._post_accumulate_grad_hooks:  # noqa: SLF001 - as above
            return False
    return True


def are_handed_on(leaves: Sequence[torch.Tensor]) -> bool:
    """Whether hooks of the user's, an optimizer's say, get gradients while autograd runs."""
    return True in [bool(leaf._post_accumulate_grad_hooks) for leaf in leaves]  # noqa: SLF001 - as above


class LeafWatch:
    """Temporary hooks that copy what arrives at each leaf, from `start` to `stop`.

    They run before the user's own hooks on the leaf, so the copy is what AD computed. A leaf that
    is reached several times in one call (reentrant checkpoints) gets the sum; what an engine call
    inside of it keeps to itself (`torch.autograd.grad` in a custom backward, an adjoint) is no
    part of it, although it runs the hooks: `is_beside` says so.
    """

    def __init__(
        self, leaves: Sequence[torch.Tensor], is_beside: Callable[[], bool], *, all_: bool = True
    ) -> None:
        """Watch leaves; without `all_`, those only of which ``.grad`` does not tell by itself."""
        self._leaves = tuple(leaves)
        self._told = frozenset() if all_ else frozenset(id(x) for x in leaves if are_fresh((x,)))
        self._is_beside = is_beside
        self._found: list[torch.Tensor | None] = [None] * len(self._leaves)
        self._undo: list[tuple[torch.Tensor, Any, bool]] = []  # leaf, hook, was it without any

    def start(self) -> None:
        """Add the hooks.

        Raises:
            InputError: A leaf takes no hooks, for example because it was frozen meanwhile.
        """
        try:
            for position, leaf in enumerate(self._leaves):
                if id(leaf) not in self._told:
                    self._add(position, leaf)
        except RuntimeError as error:
            self.stop()
            raise InputError(f"A leaf cannot be watched: {str(error).splitlines()[0]}") from error

    def _add(self, position: int, leaf: torch.Tensor) -> None:
        def take(gradient: torch.Tensor | None) -> None:
            if gradient is None or self._is_beside():
                return
            if torch.is_grad_enabled() or is_accompanied():
                with quietly(), torch.no_grad():
                    self._take(position, gradient)
            else:
                self._take(position, gradient)

        self._undo.append((leaf, take, _hooks_of(leaf) is None))
        leaf.register_hook(take)
        hooks = _hooks_of(leaf)
        if hooks is not None and len(hooks) > 1:
            # Autograd runs them in the order of insertion, which move_to_end does not change.
            mine = [(number, hook) for number, hook in hooks.items() if hook is take]
            others = [(number, hook) for number, hook in hooks.items() if hook is not take]
            at_once(hooks.clear, partial(hooks.update, [*mine, *others]))

    def _take(self, position: int, gradient: torch.Tensor) -> None:
        part = plain(gradient)
        part = part.clone() if gradient.layout == torch.strided else part
        earlier = self._found[position]
        self._found[position] = part if earlier is None else earlier + part

    def stop(self) -> None:
        """Remove the hooks."""
        for leaf, own, bare in self._undo:
            hooks = _hooks_of(leaf) or {}
            for number in [n for n, hook in list(hooks.items()) if hook is own]:
                hooks.pop(number, None)
            if bare and not _hooks_of(leaf):
                leaf._backward_hooks = None  # noqa: SLF001 - as torch left it
        self._undo = []

    def gradients(self) -> tuple[torch.Tensor, ...]:
        """One tensor per leaf, in the leaf's shape and dtype; zeros where nothing arrived."""
        arrived = (
            leaf.grad if id(leaf) in self._told else found
            for leaf, found in zip(self._leaves, self._found, strict=True)
        )
        return tuple(
            torch.zeros_like(leaf, requires_grad=False) if found is None else plain(found)
            for leaf, found in zip(self._leaves, arrived, strict=True)
        )


class GradBackup:
    """What ``.grad`` of some leaves held, to put it back."""

    def __init__(self, leaves: Sequence[torch.Tensor], *, values: bool) -> None:
        """Remember which gradients there were; with `values`, copy them."""
        self._leaves = tuple(leaves)
        self._before = tuple([leaf.grad for leaf in self._leaves])
        self._versions = tuple([leaf._version for leaf in self._leaves])
        self._copies = tuple(
            [g.detach().clone() if values and g is not None else None for g in self._before]
        )

    def restore(self) -> None:
        """Put the remembered gradients back."""
        with torch.no_grad():
            for leaf, before, copy in zip(self._leaves, self._before, self._copies, strict=True):
                if before is not None and copy is not None:
                    before.detach().copy_(copy)
                leaf.grad = before

    def is_late(self) -> bool:
        """Whether hooks have used gradients already: a step was made, or ``.grad`` is cleared."""
        before = zip(self._leaves, self._versions, strict=True)
        return any(
            leaf._post_accumulate_grad_hooks and (leaf.grad is None or leaf._version != version)  # noqa: SLF001 - as above
            for leaf, version in before
        )

    def replace(self, wrong: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> None:
        """Replace, in what ``.grad`` holds now, the part `wrong` by `right`."""
        with torch.no_grad():
            held = zip(self._leaves, self._before, self._copies, wrong, right, strict=True)
            for leaf, before, copy, w, r in held:
                if leaf.grad is None:
                    if bool(r.any()):
                        leaf.grad = r.to(leaf.dtype).reshape(leaf.shape).clone()
                elif before is None and leaf.grad.layout == torch.strided:
                    leaf.grad.copy_(r)
                elif copy is not None and not bool(torch.isfinite(w).all()):
                    leaf.grad.copy_(copy + r.to(leaf.dtype))  # NaN cannot be taken off again
                else:
                    leaf.grad.add_((r.to(torch.float64) - w.to(torch.float64)).to(leaf.dtype))
