"""Whether a program read from a file stays within bounds, found out while it first runs.

A few bytes can ask for a tensor of any size. So every operation is run on tensors without memory
first, which tells how large its results would be, and only then on values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from clarke.capture import dtypes_of
from clarke.errors import OutOfTimeError, ProofError, in_a_line
from clarke.kinks.facts import words
from clarke.numerics import PROOF_VALUES
from clarke.proof.container import refuse

if TYPE_CHECKING:
    from clarke.capture import Trace
    from clarke.deadline import Deadline

_ALL = 16  # times PROOF_VALUES, for all operations together
# How many results these have depends on values, so that tensors without memory do not tell: at most
# this many, besides one for each entry that is read, with its place.
_BY_VALUE: Mapping[str, Callable[..., int]] = MappingProxyType(
    {
        **dict.fromkeys(words("nonzero masked_select index"), lambda *_, **__: 0),
        **dict.fromkeys(words("_unique _unique2 unique_dim"), lambda *_, **__: 0),
        **dict.fromkeys(words("unique_consecutive unique_dim_consecutive"), lambda *_, **__: 0),
        "bincount": lambda t, _=None, least=0, **named: max(
            int(t.max()) + 1 if t.numel() else 0, named.get("minlength", least)
        ),
        "repeat_interleave": lambda t, **_: int(t.sum()),
    }
)


def first_run(trace: Trace, deadline: Deadline) -> Trace:
    """Run a program of a file once, no operation of it larger than the bounds.

    Returns the program with the dtypes of its tensors.

    Raises:
        ProofError: It cannot run, is too large, or does not make what the file says.
    """
    bounded = _Bounded()
    try:
        with bounded:
            found = dtypes_of(trace, deadline)
    except (ProofError, OutOfTimeError):
        raise
    except Exception as error:
        raise refuse(f"{bounded.last} cannot run on what it reads ({in_a_line(error)})") from error
    return replace(trace, slot_dtypes=found)


class _Bounded(TorchDispatchMode):
    """Refuses operations before they take memory."""

    def __init__(self) -> None:
        super().__init__()
        self.last = "the program"
        self._total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.last = str(func)
        shapes = {k: "meta" if k == "device" else _shape(v) for k, v in kwargs.items()}
        if not any(isinstance(a, torch.Tensor) for a in tree_leaves((args, kwargs))):
            shapes["device"] = "meta"
        bound = _BY_VALUE.get(func.overloadpacket.__name__)
        try:
            made = func(*tree_map(_shape, args), **shapes)
            sizes = [t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor)]
        except (NotImplementedError, RuntimeError):
            if bound is None:
                raise
            sizes = [bound(*args, **kwargs)]
        self._total += sum(sizes)
        if max(sizes, default=0) > PROOF_VALUES or self._total > _ALL * PROOF_VALUES:
            raise refuse(f"{self.last} makes {sum(sizes)} values, too many with those before it")
        return func(*args, **kwargs)


def _shape(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return tree_map(_shape, value) if isinstance(value, (list, tuple)) else value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
