"""What some operations are depends on the arguments of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeGuard

import torch

from clarke.kinks.smooth.model import Condition, OpClass, named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _integer(value: object) -> bool:
    return isinstance(value, (int, float)) and float(value).is_integer()


def _integer_exponents(a: Mapping[str, object]) -> bool:
    exponent = a.get("exponent")
    if isinstance(exponent, (list, tuple)):
        return all(_integer(e) for e in exponent)
    return _integer(exponent)


def _positive_eps(a: Mapping[str, object]) -> bool:
    eps = a.get("eps", a.get("epsilon"))
    return isinstance(eps, float) and eps > 0


def _no_dropout(a: Mapping[str, object]) -> bool:
    return a.get("dropout_p") == 0


def _smooth_cells(a: Mapping[str, object]) -> bool:
    # cuDNN's modes: 0 ReLU, 1 tanh, 2 LSTM, 3 GRU.
    return a.get("mode") in (1, 2, 3) and (a.get("dropout") == 0 or a.get("train") is False)


def _no_rounding(a: Mapping[str, object]) -> bool:
    return "rounding_mode" in a and a["rounding_mode"] is None


def _no_eps(a: Mapping[str, object]) -> bool:
    return "eps" in a and a["eps"] is None


def _no_padding_row(a: Mapping[str, object]) -> bool:
    row, indices = a.get("padding_idx"), a.get("indices")
    if a.get("scale_grad_by_freq") is not False:
        once = isinstance(indices, torch.Tensor) and _distinct(indices)
        if not once:
            return False
    if isinstance(row, int) and row < 0:
        return True
    if not isinstance(row, int) or not isinstance(indices, torch.Tensor):
        return False
    return not bool((indices == row).any())


def _sums_or_means(a: Mapping[str, object]) -> bool:
    # embedding_bag's modes: 0 sum, 1 mean, 2 max.
    return a.get("mode") in (0, 1) and a.get("scale_grad_by_freq") is False


def _linear_reduce(a: Mapping[str, object]) -> bool:
    return a.get("reduce") in ("sum", "mean")


def _floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _cast_keeps_fractions(a: Mapping[str, object]) -> bool:
    dtype = a.get("dtype")
    if not isinstance(dtype, torch.dtype):
        return "dtype" in a and dtype is None
    source = a.get("self")
    whole = isinstance(source, torch.Tensor) and not _floating(source)
    return dtype.is_floating_point or dtype.is_complex or whole


def _copy_keeps_fractions(a: Mapping[str, object]) -> bool:
    target, source = a.get("self"), a.get("src")
    whole = isinstance(source, torch.Tensor) and not _floating(source)
    return _floating(target) or whole


def _derived_exponent(a: Mapping[str, object]) -> bool:
    """Whether autograd derives ``x 2^n`` by these exponents: integer ones are measured.

    The function is linear in x, so its derivative is its value at 1.
    """
    x, exponent = a.get("self"), a.get("other")
    if _floating(exponent):
        return True
    if not isinstance(x, torch.Tensor) or not isinstance(exponent, torch.Tensor):
        return False
    if not x.is_floating_point() or exponent.numel() == 0:  # exponents that nobody kept
        return False
    with torch.enable_grad():
        ones = torch.ones(exponent.shape, dtype=x.dtype, device=x.device, requires_grad=True)
        value = torch.ldexp(ones, exponent)
        (slope,) = torch.autograd.grad(value.sum(), ones)
    value = value.detach()
    return bool(torch.isfinite(value).all()) and torch.equal(slope, value)


def _real(a: Mapping[str, object]) -> bool:
    x = a.get("self")
    return isinstance(x, torch.Tensor) and not x.is_complex()


def _off_threshold(a: Mapping[str, object]) -> bool:
    x, beta, threshold = a.get("self"), a.get("beta"), a.get("threshold")
    if not isinstance(x, torch.Tensor) or not isinstance(beta, (int, float)):
        return False
    return isinstance(threshold, (int, float)) and not bool((x * beta == threshold).any())


def _regular_triangle(*names: str) -> Callable[[Mapping[str, object]], bool]:
    def holds(a: Mapping[str, object]) -> bool:
        if a.get("unitriangular") is True:
            return True
        matrix = next((a[n] for n in names if n in a), None)
        if not isinstance(matrix, torch.Tensor):
            return False
        return bool((matrix.diagonal(dim1=-2, dim2=-1) != 0).all())

    return holds


def _distinct(positions: torch.Tensor) -> bool:
    return bool(positions.unique().numel() == positions.numel())


def _distinct_cells(a: Mapping[str, object]) -> bool:
    if a.get("accumulate") is True:
        return True
    target, indices = a.get("self"), a.get("indices")
    if not isinstance(target, torch.Tensor) or not isinstance(indices, (list, tuple)):
        return False
    if not all(i is None or isinstance(i, torch.Tensor) for i in indices):
        return False
    cells = torch.arange(target.numel(), device=target.device).reshape(target.shape)
    return _distinct(cells[tuple(slice(None) if i is None else i for i in indices)])


def _distinct_along(a: Mapping[str, object]) -> bool:
    index, dim = a.get("index"), a.get("dim")
    if not isinstance(index, torch.Tensor) or not isinstance(dim, int):
        return False
    if index.dim() == 0:
        return True
    gaps = index.sort(dim if index.dim() > 1 else 0).values.diff(dim=dim if index.dim() > 1 else 0)
    return bool((gaps != 0).all())


def _distinct_flat(a: Mapping[str, object]) -> bool:
    if a.get("accumulate") is True:
        return True
    target, index = a.get("self"), a.get("index")
    if not isinstance(target, torch.Tensor) or not isinstance(index, torch.Tensor):
        return False
    return index.numel() == 0 or _distinct(index.remainder(target.numel()))


def _inside_dense(a: Mapping[str, object]) -> bool:
    x, size, stride = a.get("self"), a.get("size"), a.get("stride")
    if not isinstance(x, torch.Tensor) or not _integers(size) or not _integers(stride):
        return False
    expected = 1
    for step, length in sorted(zip(x.stride(), x.shape, strict=True)):
        if length > 1 and step != expected:
            return False
        expected *= length
    first = x.storage_offset()
    start = a.get("storage_offset")
    start = start if isinstance(start, int) else first
    reach = sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    return first <= start and start + reach < first + max(x.numel(), 1)


def _integers(value: object) -> TypeGuard[Sequence[int]]:
    return isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value)


_OVERLAP: Final = (
    "writes that meet in one place: the last one counts, autograd gives all of them credit"
)

# Operations that are what a set says only for some arguments. Those in no set are unknown to
# `classify` unless it is told the arguments; those in a set (batch normalization, casts and copies,
# powers) are there by their usual arguments, or by the worst of them.
CONDITIONAL: Final = named(
    {
        "_batch_norm_with_update.default _native_batch_norm_legit.default"
        " _native_batch_norm_legit.no_stats batch_norm_backward.default cudnn_batch_norm.default"
        " miopen_batch_norm.default native_batch_norm.default"
        " native_batch_norm_backward.default": Condition(
            _positive_eps, "with eps = 0 a constant channel gives 0 where the slope is infinite"
        ),
        "embedding.default embedding_dense_backward.default": Condition(
            _no_padding_row,
            "autograd leaves out the row padding_idx, and with scale_grad_by_freq divides by"
            " counts: what it returns is not the derivative",
        ),
        "_embedding_bag.default": Condition(
            _sums_or_means,
            "mode max has kinks, and scale_grad_by_freq does not give the derivative",
        ),
        "_index_put_impl_.default _unsafe_index_put.default"
        " index_put.default index_put_.default": Condition(
            _distinct_cells,
            _OVERLAP,
        ),
        "index_copy.default index_copy_.default scatter.src scatter_.src": Condition(
            _distinct_along,
            _OVERLAP,
            OpClass.STRUCTURAL,
        ),
        "put.default put_.default": Condition(
            _distinct_flat,
            _OVERLAP,
        ),
        "index_reduce.default index_reduce_.default"
        " scatter_reduce.two scatter_reduce_.two": Condition(
            _linear_reduce, "amax and amin have kinks, and products no forward-mode derivative"
        ),
        "as_strided.default as_strided_copy.default": Condition(
            _inside_dense,
            "it reads memory outside of its input's own entries, which autograd cannot credit",
            OpClass.STRUCTURAL,
        ),
        "_to_copy.default": Condition(
            _cast_keeps_fractions,
            "a cast from floating point to integers or booleans is a step function",
            OpClass.STRUCTURAL,
            OpClass.DISCRETE,
        ),
        "copy_.default": Condition(
            _copy_keeps_fractions,
            "a copy of floating point values into integers or booleans is a step function",
            OpClass.STRUCTURAL,
            OpClass.DISCRETE,
        ),
        "_foreach_pow.Scalar _foreach_pow.ScalarList _foreach_pow_.Scalar _foreach_pow_.ScalarList"
        " pow.Tensor_Scalar pow_.Scalar": Condition(
            _integer_exponents,
            "at base 0 a fractional exponent has an infinite slope, or leaves the domain",
            OpClass.ANALYTIC,
            OpClass.SINGULAR,
        ),
        "div.Scalar_mode div.Tensor_mode div_.Scalar_mode div_.Tensor_mode": Condition(
            _no_rounding,
            "a rounded quotient is a step function",
            OpClass.ANALYTIC,
            OpClass.DISCRETE,
        ),
        "logit.default logit_.default": Condition(_no_eps, "eps clamps the input: two kinks"),
        "ldexp.Tensor ldexp_.default": Condition(
            _derived_exponent,
            "autograd's power of 2 is another than the function's: up to torch 2.13 it is 0 for"
            " negative integer exponents (2**-1 in integers)",
        ),
        "softplus.default softplus_backward.default": Condition(
            _off_threshold,
            "at the threshold softplus steps down to the identity, by exp(-threshold) / beta",
        ),
        "_efficient_attention_forward.default _flash_attention_forward.default"
        " _scaled_dot_product_cudnn_attention.default"
        " _scaled_dot_product_efficient_attention.default"
        " _scaled_dot_product_flash_attention.default": Condition(
            _no_dropout, "its dropout draws a mask that it does not return"
        ),
        "_cudnn_rnn.default": Condition(
            _smooth_cells, "a ReLU network, or dropout that it does not return"
        ),
        "linalg_lu_solve.default linalg_solve_triangular.default"
        " triangular_solve.default": Condition(
            _regular_triangle("LU", "A", "self"), "a zero on the diagonal: the matrix is singular"
        ),
        "sgn.default sgn_.default": Condition(
            _real, "of complex numbers it is z / |z|, undefined at 0", OpClass.DISCRETE
        ),
    }
)
