"""A digest of what ran: operators, wiring, scalars and the bytes of every tensor that was read.

A certificate names its program by this digest, so that no other program can take its place. What
operations computed on the way is left out: it follows from the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.capture.trace import External, OpRecord, Ref, Trace, input_slots
from clarke.devices import array_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    Feed = Callable[[Buffer], None]

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout)


def digest(*parts: Any) -> str:
    """A digest of plain data, tensors, arrays, traces and dataclasses made of them.

    Equal for equal types, shapes and bytes; every other object counts by its type alone.
    """
    found = hashlib.blake2b(digest_size=32)
    with torch.no_grad():
        _feed(found.update, parts)
    return found.hexdigest()


def _feed(feed: Feed, value: Any) -> None:
    # Every item starts with its kind and its length: no two lists of parts read alike.
    if isinstance(value, torch.Tensor):
        _feed_tensor(feed, value)
    elif isinstance(value, np.ndarray):
        _feed(feed, ("array", value.dtype.str, value.shape))
        _feed_bytes(feed, "bytes", np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Enum):
        _feed_bytes(feed, type(value).__name__, value.name.encode())
    elif value is None or isinstance(value, _PLAIN):
        # Of floats, repr tells every bit.
        _feed_bytes(feed, type(value).__name__, repr(value).encode())
    elif isinstance(value, (list, tuple)):
        _feed_bytes(feed, "sequence", str(len(value)).encode())
        for item in value:
            _feed(feed, item)
    elif isinstance(value, Mapping):
        _feed(feed, sorted(value.items(), key=lambda item: repr(item[0])))
    elif isinstance(value, Trace):
        _feed_trace(feed, value)
    elif is_dataclass(value) and not isinstance(value, type):
        _feed_bytes(feed, "object", type(value).__qualname__.encode())
        for f in fields(value):
            _feed(feed, (f.name, getattr(value, f.name)))
    else:
        _feed_bytes(feed, "other", type(value).__qualname__.encode())


def _feed_bytes(feed: Feed, kind: str, content: bytes) -> None:
    feed(f"{kind}:{len(content)}:".encode())
    feed(content)


def _feed_tensor(feed: Feed, tensor: torch.Tensor) -> None:
    plain = tensor.detach()
    _feed(feed, ("tensor", plain.dtype, tuple(plain.shape), plain.layout))
    if plain.layout == torch.sparse_coo:
        plain = plain.coalesce()
        _feed(feed, (plain.indices(), plain.values()))
        return
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    plain = plain.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    # A single number may have any stride, and only 1 can be viewed as bytes.
    count = plain.numel()
    whole = plain.as_strided((count,), (1,)).view(torch.uint8) if count else plain.to(torch.uint8)
    feed(f"bytes:{whole.numel()}:".encode())
    feed(array_of(whole).data)


def _feed_trace(feed: Feed, trace: Trace) -> None:
    for op in trace.ops:
        _feed(feed, ("op", _parts_of(op)))
    unread = _written_blindly(trace)
    for slot in sorted(trace.externals):
        external = trace.externals[slot]
        if slot in unread:
            _feed(feed, ("written", slot, tuple(external.tensor.shape)))
        else:
            _feed(feed, ("external", _read(external)))
    _feed(feed, ("result", trace.output, len(trace.scalar_reads)))


def _written_blindly(trace: Trace) -> set[int]:
    """Running statistics in training: batch normalisation updates them, and reads them not.

    They are put back, or go on, after the run; nothing of the program depends on that.
    """
    blind: set[int] = set()
    read: set[int] = set()
    for op in trace.ops:
        training = "batch_norm" in op.short_name and len(op.args) > 5 and op.args[5] is True
        own = {a.slot for a in op.args[3:5] if isinstance(a, Ref)} if training else set()
        blind |= own
        read |= {*input_slots(op)} - own
    return blind - read - {trace.output}


def _parts_of(op: OpRecord) -> tuple[Any, ...]:
    # Of random operations also what came out, since it does not come out again.
    drawn = (dict(op.drawn), dict(op.kept_outputs)) if op.drawn else ()
    return (
        op.name,
        op.args,
        dict(op.kwargs),
        op.outputs,
        op.differentiated,
        op.reads_stopped,
        op.hidden_write,
        sorted(op.varied),
        drawn,
    )


def _read(external: External) -> tuple[Any, ...]:
    tensor = external.tensor
    # What a recorded operation wrote to counts as it was before.
    written = external.snapshot is not None
    place = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset()) if written else ()
    return (
        external.slot,
        external.origin,
        external.storage,
        external.name,
        external.stopped,
        external.cut_by,
        external.snapshot if written else tensor,
        place,
    )
