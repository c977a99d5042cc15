"""Whether recorded tensors can still be read: their memory may be freed, shrunk or moved.

A record holds tensors, not their memory: what shards parameters over processes, and what saves
memory by hand, frees it under tensors that are still there. Reading them would end the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.errors import ModifiedSinceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.capture.trace import OpRecord, Trace

_PLAIN = torch._C._disabled_torch_dispatch_impl  # noqa: SLF001 - has no public name


def is_there(tensor: torch.Tensor) -> bool:
    """Whether all of a tensor's entries lie in memory that is there.

    Where no plain memory is to be asked (sparse tensors, classes of tensors that hold others),
    torch itself looks after it.
    """
    if tensor.layout != torch.strided or type(tensor).__torch_dispatch__ is not _PLAIN:
        return True
    if tensor.is_contiguous():
        own, offset = tensor.nbytes, tensor.storage_offset()
        if not own:
            return True
        memory = tensor.untyped_storage()
        needed = own + offset * tensor.element_size() if offset else own
        return needed <= memory.nbytes() and memory.data_ptr() != 0
    if tensor.numel() == 0:
        return True
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    memory = tensor.untyped_storage()
    needed = (tensor.storage_offset() + reach + 1) * tensor.element_size()
    return needed <= memory.nbytes() and memory.data_ptr() != 0


def refuse_missing(trace: Trace, *, gathered: bool = True) -> None:
    """Make sure that every value of a trace can be read.

    Args:
        trace: The trace.
        gathered: Parameters that are whole only while in use count as missing.

    Raises:
        ModifiedSinceError: One cannot; names the place where it was read.
    """
    for e in trace.externals.values():
        if e.gathered is not None:
            if gathered:
                raise _apart(str(e.location))
            continue
        if e.snapshot is None and not is_there(e.tensor):
            raise _gone(str(e.location))
    for op in trace.ops:
        if not all(is_there(t) for t in _kept(op)):
            raise _gone(str(op.location))


def _kept(op: OpRecord) -> Iterator[torch.Tensor]:
    if op.signs is not None:
        yield op.signs.output
    else:
        yield from op.kept.values()
    yield from op.kept_outputs.values()
    yield from op.kept_lists.values()
    yield from op.kept_named.values()


def _apart(place: str) -> ModifiedSinceError:
    return ModifiedSinceError(
        f"The parameter read at {place} lies in parts on several processes, and is whole only "
        "while it is in use, so the program cannot be run again here."
    )


def _gone(place: str) -> ModifiedSinceError:
    return ModifiedSinceError(
        f"The memory of a tensor read at {place} has been freed or made smaller since "
        "(by resize_, set_ or a storage's resize_), so the program cannot be run again. Free it "
        "after the gradient has been judged."
    )
