"""Whether autograd gets back, in its backward pass, the tensors that it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.torch_private import saved_tensors_hooks
from clarke.undo import contextmanager

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECKPOINT = "torch.utils.checkpoint"


def saves_otherwise() -> bool:
    """Whether hooks are at work that may give back other tensors than were saved.

    Within `torch.autograd.graph.saved_tensors_hooks` nothing is taken on trust but torch's own
    checkpoints that restore random states: what they compute again must be the same, as torch asks
    for. Not `save_on_cpu`: of tensors that are there already it keeps no copy, and autograd then no
    longer notices when they are overwritten.
    """
    hooks = saved_tensors_hooks()
    return hooks is not None and not _computes_again(hooks[0])


@contextmanager
def saving_plainly() -> Iterator[None]:
    """Out of reach of the user's `saved_tensors_hooks`, of which the innermost alone count."""
    if saved_tensors_hooks() is None:
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.detach, lambda saved: saved):
        yield


def saved_memory(root: Any) -> frozenset[int] | None:
    """Addresses of all memory of which a graph of autograd's has saved something.

    None where that is not known: Functions of somebody's own may hold what they like.

    Args:
        root: The node of the result (`grad_fn`).
    """
    found: set[int] = set()
    seen: set[Any] = set()
    todo = [root]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return None
        todo += [following for following, _ in node.next_functions]
        for name in dir(node):
            if not name.startswith("_saved_"):
                continue
            try:
                saved = getattr(node, name)
            except RuntimeError:  # freed, or overwritten since: autograd will say so itself
                return None
            for value in saved if isinstance(saved, (list, tuple)) else (saved,):
                if isinstance(value, torch.Tensor) and value.layout is torch.strided:
                    found.add(value.untyped_storage().data_ptr())
    return frozenset(found)


def _computes_again(pack: Any) -> bool:
    if getattr(pack, "__module__", "") != _CHECKPOINT:
        return False
    recompute = getattr(_closed_over(pack, "frame"), "recompute_fn", None)
    return _closed_over(recompute, "preserve_rng_state") is True


def _closed_over(function: Any, name: str) -> Any:
    """The value of a variable from around a function; None if it has none of that name."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return function.__closure__[names.index(name)].cell_contents if name in names else None
