"""Sums that are added up term by term in a narrow type: where in a program, and of how many terms.

Most kernels add up the terms of a gradient in float32 or wider, pairwise or in blocks. Some do it
one by one in the type of the gradient itself, and autograd does so where a value has several uses:
of 4096 equal terms in bfloat16 a sixteenth is left, in float16 a half. Who adds up how, was
measured on the processor with torch 2.13 (`tests/kinks/test_kernels_that_add.py` does it again);
an operation that is not known for adding up otherwise counts among the latter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture import Ref, input_slots
from clarke.kinks.facts import words
from clarke.numerics import LOSES_TERMS
from clarke.steering.roundoff import most_repeated, unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clarke.capture import OpRecord, Trace

    Value = Callable[[int], torch.Tensor | None]

_HALF = (torch.float16, torch.bfloat16)

# One term for each element that is read, or terms that are added up in float32 or wider.
_OTHERWISE: Final = words(
    """
    _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward _batch_norm_with_update
    _cdist_forward _convolution _fused_dropout _fused_rms_norm _index_put_impl _log_softmax
    _log_softmax_backward_data _native_batch_norm_legit _native_batch_norm_legit_no_training
    _pin_memory _prelu_kernel _prelu_kernel_backward _reshape_copy _safe_softmax
    _scaled_dot_product_flash_attention_for_cpu _softmax _softmax_backward_data _to_copy
    _unsafe_index_put _unsafe_view _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d _weight_norm_interface addbmm addr alias_copy amax amin aminmax
    argmax argmin avg_pool2d_backward avg_pool3d_backward bernoulli binary_cross_entropy
    binary_cross_entropy_backward binary_cross_entropy_with_logits block_diag cat
    channel_shuffle clone col2im complex constant_pad_nd contiguous convolution copy
    cross_entropy cummax cummin cumprod cumsum diag_embed diagonal_backward diagonal_copy
    diagonal_scatter dist dot elu_backward expand_copy fill flip fractional_max_pool2d
    fractional_max_pool3d gather gelu gelu_backward glu glu_backward hardshrink_backward
    hardswish hardswish_backward hardtanh_backward huber_loss huber_loss_backward index_add
    index_copy index_fill index_put index_reduce kthvalue leaky_relu_backward lift
    lift_fresh_copy linalg_cross linalg_vector_norm log_sigmoid_backward log_sigmoid_forward
    logcumsumexp logsumexp masked_fill masked_scatter masked_select max
    max_pool2d_with_indices max_pool2d_with_indices_backward max_pool3d_with_indices_backward
    max_unpool2d max_unpool3d mean median min mish mkldnn_rnn_layer mode mse_loss
    mse_loss_backward nanmedian nansum narrow_copy native_batch_norm
    native_batch_norm_backward native_dropout native_group_norm nll_loss2d_backward
    nll_loss2d_forward nll_loss_backward nll_loss_forward norm ones_like permute_copy
    pixel_shuffle pixel_unshuffle pow prod put reflection_pad1d reflection_pad1d_backward
    reflection_pad2d reflection_pad2d_backward reflection_pad3d reflection_pad3d_backward
    renorm repeat replication_pad1d_backward replication_pad2d_backward
    replication_pad3d_backward roll rot90 rrelu_with_noise rrelu_with_noise_backward rsub
    scatter scatter_add scatter_reduce segment_reduce select_backward select_scatter
    slice_backward slice_scatter smooth_l1_loss smooth_l1_loss_backward soft_margin_loss
    soft_margin_loss_backward softplus softplus_backward softshrink_backward sort
    split_with_sizes_copy squeeze squeeze_copy stack std std_mean sum swapaxes swapdims t
    t_copy threshold threshold_backward topk trace transpose transpose_copy tril triu
    unbind_copy unfold_backward unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_copy
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean vdot view_copy
    xlogy zeros_like
    """
)
# In float32 and in blocks with strided tensors, one by one with sparse ones.
_PRODUCTS: Final = words("mm addmm bmm baddbmm mv addmv _sparse_mm")
# Views of which elements may overlap.
_OVERLAPPING: Final = frozenset({"as_strided", "unfold"})


@dataclass(frozen=True, eq=False)
class Suspect:
    """Where terms may be added up one by one.

    Attributes:
        position: Of the operation whose kernel does it, or of the first that reads the value.
        slots: The values whose gradients it adds up.
        dtype: The type in which it does.
        uses: How many uses of a value are added up; 0 where a kernel does.
    """

    position: int
    slots: tuple[int, ...]
    dtype: torch.dtype
    uses: int = 0


@dataclass(frozen=True, eq=False)
class OneByOne:
    """A sum of many terms that are added up one by one.

    Attributes:
        op: The operation, or the first one that reads a value of many uses.
        slots: The values whose gradients it adds up.
        dtype: The type in which it does.
        terms: How many; infinity where that is not known.
        uses: The terms are the uses of one value.
    """

    op: OpRecord
    slots: tuple[int, ...]
    dtype: torch.dtype
    terms: float
    uses: bool

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        place = f"{self.op.shown} at {self.op.location}"
        if self.uses:
            return (
                f"The gradient of a value that is used {self.terms:.0f} times, first by {place}, "
                f"is added up one use after the other in {kind}"
            )
        many = "" if math.isinf(self.terms) else f"{self.terms:.0f} terms of "
        return f"{place} adds up {many}its gradient one after the other in {kind}"


def suspects(trace: Trace) -> tuple[Suspect, ...]:
    """Where a program may add up terms of its gradient one by one, whatever its sizes are."""
    kinds = set(trace.slot_dtypes.values())
    if not (kinds & set(_HALF) or torch.float32 in kinds):
        return ()
    found = [s for i, op in enumerate(trace.ops) if (s := _kernel(trace, i, op)) is not None]
    return (*found, *(_many_uses(trace) if kinds & set(_HALF) else ()))


def heavy(trace: Trace, among: Sequence[Suspect], value: Value) -> tuple[OneByOne, ...]:
    """Those that add up so many terms that a good part of a sum may be lost.

    Args:
        trace: What ran.
        among: What `suspects` found in it.
        value: The tensor of a slot, as far as it is at hand.
    """
    found = []
    for one in among:
        op = trace.ops[one.position]
        terms = float(one.uses) if one.uses else _terms(op, one, value)
        if math.isinf(terms) and one.dtype not in _HALF:
            continue  # a million terms are rare
        if terms * unit_roundoff(one.dtype) > LOSES_TERMS:
            found.append(OneByOne(op, one.slots, one.dtype, terms, bool(one.uses)))
    return tuple(found)


def at_hand(trace: Trace) -> Value:
    """The tensors that a program was given, by slot."""

    def found(slot: int) -> torch.Tensor | None:
        external = trace.externals.get(slot)
        return None if external is None else external.tensor

    return found


# ---------------------------------------------------------------- kernels


def _kernel(trace: Trace, position: int, op: OpRecord) -> Suspect | None:
    if not op.differentiated or not op.varied:
        return None
    name = op.short_name.rstrip("_")
    if name in _OTHERWISE or torch.Tag.pointwise in op.func.tags:
        return None
    if op.func.is_view and name not in _OVERLAPPING:
        return None
    kinds = {trace.slot_dtypes.get(s) for s in (*input_slots(op), *op.outputs) if s is not None}
    narrow = next((d for d in _HALF if d in kinds), None)
    if narrow is None and not (torch.float32 in kinds and name in _INDEXED):
        return None
    slots = tuple(_added(op, name))
    return Suspect(position, slots, narrow or torch.float32) if slots else None


def _added(op: OpRecord, name: str) -> Iterator[int]:
    """The values whose gradients an operation adds up."""
    for place in sorted(op.varied):
        if name == "native_layer_norm" and place == 0:
            continue  # over one row, in float32
        if place < len(op.args):
            value = op.args[place]
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, Ref):
                    yield item.slot


def _terms(op: OpRecord, one: Suspect, value: Value) -> float:
    """How many terms an entry has at most; infinity where nothing tells."""
    name = op.short_name.rstrip("_")
    if name in _INDEXED:
        return _by_index(op, one, value, _INDEXED[name])
    if name in _PRODUCTS:
        tensors = (value(s) for s in input_slots(op))
        sparse = any(t is not None and t.layout is not torch.strided for t in tensors)
        return math.inf if sparse else 1.0
    of = _WINDOWS.get(name)
    found = math.inf if of is None else of(op, value)
    results = [value(s) for s in op.outputs[:1] if s is not None]
    sizes = [math.inf if r is None else float(r.numel()) for r in results]
    return min([found, *sizes]) if name != "native_layer_norm" else found


# The argument with the indices by which rows are read.
_INDEXED: Final = {"embedding": 1, "_embedding_bag": 1, "index": 1, "index_select": 2, "take": 1}


def _by_index(op: OpRecord, one: Suspect, value: Value, place: int) -> float:
    given = op.args[place] if place < len(op.args) else None
    slots = [i.slot for i in (given if isinstance(given, (list, tuple)) else (given,)) if i]
    tensors = [value(s) for s in slots]
    held = [t for t in tensors if t is not None]
    if len(held) < len(tensors) or not held:
        return math.inf
    if all(t.dtype is torch.bool for t in held):
        return 1.0
    if any(t.dtype is torch.bool for t in held):
        return math.inf
    most = float(torch.broadcast_shapes(*(t.shape for t in held)).numel())
    if most * unit_roundoff(one.dtype) <= LOSES_TERMS:
        return most
    return most_repeated([t.to(torch.int64) for t in held])


def _argument(op: OpRecord, place: int, default: Any) -> Any:
    return op.args[place] if place < len(op.args) and op.args[place] != [] else default


def _each(value: Any, count: int) -> list[int]:
    """A number for each dimension, of which there may be one for all."""
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    return found * count if len(found) == 1 else found


def _overlap(kernel: Any, stride: Any, dilation: Any, count: int) -> float:
    """How many windows meet in an element."""
    sizes = zip(*(_each(v, count) for v in (kernel, stride, dilation)), strict=True)
    return math.prod(float(-(-((k - 1) * d + 1) // s)) for k, s, d in sizes)


def _pooled(dimensions: int, *, dilated: bool) -> Callable[[OpRecord, Value], float]:
    def terms(op: OpRecord, _value: Value) -> float:
        kernel = op.args[1]
        dilation = _argument(op, 4, 1) if dilated else 1
        return _overlap(kernel, _argument(op, 2, kernel), dilation, dimensions)

    return terms


def _adaptive(op: OpRecord, value: Value) -> float:
    given = op.args[0]
    wanted = _each(op.args[1], 1)
    if all(n == 1 for n in wanted):
        return 1.0
    read = value(given.slot) if isinstance(given, Ref) else None
    if read is None:
        return math.inf
    sizes = read.shape[-len(wanted) :]
    return math.prod(
        1.0 if n <= own and own % n == 0 else -(-n // own) + 1.0
        for n, own in zip(wanted, sizes, strict=True)
    )


def _padded(op: OpRecord, _value: Value) -> float:
    pads = [max(p, 0) for p in op.args[1]]
    return float(math.prod(1 + max(two) for two in zip(pads[::2], pads[1::2], strict=True)))


def _rows(op: OpRecord, value: Value) -> float:
    given = op.args[0]
    read = value(given.slot) if isinstance(given, Ref) else None
    return math.inf if read is None else read.numel() / max(math.prod(op.args[1]), 1)


_WINDOWS: Final[dict[str, Callable[[OpRecord, Value], float]]] = {
    "avg_pool2d": _pooled(2, dilated=False),
    "avg_pool3d": _pooled(3, dilated=False),
    "max_pool2d_with_indices": _pooled(2, dilated=True),
    "max_pool3d_with_indices": _pooled(3, dilated=True),
    "_adaptive_avg_pool2d": _adaptive,
    "_adaptive_avg_pool3d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "adaptive_max_pool3d": _adaptive,
    "im2col": lambda op, _: _overlap(op.args[1], op.args[4], op.args[2], 2),
    "unfold": lambda op, _: float(-(-op.args[2] // op.args[3])),
    "unfold_copy": lambda op, _: float(-(-op.args[2] // op.args[3])),
    "replication_pad1d": _padded,
    "replication_pad2d": _padded,
    "replication_pad3d": _padded,
    "native_layer_norm": _rows,
}


# ---------------------------------------------------------------- several uses of a value


def _many_uses(trace: Trace) -> Iterator[Suspect]:
    """Values in narrow types that more operations read than can be added up one by one."""
    whole: dict[int, int] = {}
    parts: dict[int, dict[int, list[tuple[int, int]]]] = {}
    first: dict[int, int] = {}
    for position, op in enumerate(trace.ops):
        for place in op.varied:
            value = op.args[place] if place < len(op.args) else None
            part = _part(op) if place == 0 else None
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if not isinstance(item, Ref) or trace.slot_dtypes.get(item.slot) not in _HALF:
                    continue
                first.setdefault(item.slot, position)
                if part is None:
                    whole[item.slot] = whole.get(item.slot, 0) + 1
                else:
                    parts.setdefault(item.slot, {}).setdefault(part[0], []).append(part[1])
    for slot, position in first.items():
        apart = parts.get(slot, {}).values()
        count = whole.get(slot, 0) + sum(map(_deepest, apart))
        dtype = trace.slot_dtypes[slot]
        if count * unit_roundoff(dtype) > LOSES_TERMS:
            yield Suspect(position, (slot,), dtype, count)


def _part(op: OpRecord) -> tuple[int, tuple[int, int]] | None:
    """The dimension and range that an operation reads of a value; None where that may be all.

    Elsewhere its gradient is zero, and adding that loses nothing.
    """
    args = op.args
    if op.short_name == "select" and args[2] >= 0:
        return args[1], (args[2], args[2] + 1)
    if op.short_name == "slice" and len(args) >= 4:
        low, high = args[2] or 0, args[3]
        if low >= 0 and high is not None and high >= 0:
            return args[1], (low, high)
    return None


def _deepest(ranges: Sequence[tuple[int, int]]) -> int:
    """In how many of some ranges the most frequent place lies."""
    ends = sorted([(low, 1) for low, _ in ranges] + [(high, -1) for _, high in ranges])
    most = now = 0
    for _, step in ends:
        now += step
        most = max(most, now)
    return most
