"""What PyTorch's own operations are: analytic, structural, constant, random, singular, discrete.

A table, made by hand from ``derivatives.yaml`` and ``native_functions.yaml`` of torch 2.6, 2.13 and
2.14 and checked by numbers (``tests/kinks/test_smooth.py``: gradients at special inputs against
gradients nearby and against difference quotients, on the installed torch). A name in no set is
unknown: it is never taken for smooth. In no set are operations with kinks (relu, abs, max, clamp,
max_pool, sort), which rules own; operations that never reach a dispatch mode under autograd because
they decompose (``linear``, ``softmax.int``, ``einsum``); forms that only backends and compilers
call (``.out``); and those for sparse, quantized and nested layouts.

The promise of `ANALYTIC`: at every finite real input where the first result is finite, that result
is a real-analytic function of all floating point inputs, and autograd returns its derivative.
Floating point rounding, underflow and casts to a narrower floating point type count as exact.
Three things stay outside of the promise:

* Further results: statistics such as ``native_layer_norm``'s mean, ``logsumexp`` of attention.
  Autograd treats most of them as constants, although they are not.
* Infinite entries. A softmax, ``logsumexp`` or attention with ``-inf`` entries is analytic in the
  finite ones as long as every row has one.
* Sparse tensors; and complex numbers, for functions with a branch cut (see `classify`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


class OpClass(Enum):
    """What an operation is, as a function of its floating point inputs."""

    ANALYTIC = "analytic in its floating point inputs"
    STRUCTURAL = "moves, copies or omits entries: a linear map of zeros and ones, plus constants"
    CONSTANT = "does not depend on the values of differentiable inputs"
    RANDOM = "random: its recorded outcome is a constant"
    SINGULAR = "analytic except at special inputs, where a slope is infinite or undefined"
    DISCRETE = "piecewise constant, or with jumps"


def _aten(*groups: str) -> frozenset[str]:
    """Names in the dispatcher's spelling, from white-space separated ``name.overload``."""
    names = [f"aten::{word}" for group in groups for word in group.split()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"listed twice: {', '.join(twice)}")
    return frozenset(names)


def _named(sentences: Mapping[str, str]) -> Mapping[str, str]:
    """One sentence for each of the white-space separated names of a key."""
    found: dict[str, str] = {}
    for words, sentence in sentences.items():
        for name in _aten(words):
            if name in found:
                raise ValueError(f"listed twice: {name}")
            found[name] = sentence
    return MappingProxyType(found)


ANALYTIC: Final = _aten(
    # Sums, products, quotients
    """
    _conj.default _conj_physical.default _neg_view.default _neg_view_copy.default add.Scalar
    add.Tensor add_.Scalar add_.Tensor addcdiv.default addcdiv_.default addcmul.default
    addcmul_.default conj_physical_.default deg2rad.default deg2rad_.default div.Scalar
    div.Tensor div_.Scalar div_.Tensor lerp.Scalar lerp.Tensor lerp_.Scalar lerp_.Tensor
    mul.Scalar mul.Tensor mul_.Scalar mul_.Tensor neg.default neg_.default rad2deg.default
    rad2deg_.default rsub.Scalar rsub.Tensor sub.Scalar sub.Tensor sub_.Scalar sub_.Tensor
    """,
    # Exponentials and logarithms (logsumexp and softmax subtract the maximum and add it back: no
    # kink)
    """
    _log_softmax.default _masked_softmax.default _safe_softmax.default _softmax.default
    exp.default exp2.default exp2_.default exp_.default expm1.default expm1_.default
    log1p.default log1p_.default log_sigmoid_forward.default logaddexp.default
    logaddexp2.default logcumsumexp.default logsumexp.default sigmoid.default sigmoid_.default
    """,
    # Trigonometric and hyperbolic functions (the in-place asinh_ has no derivative)
    """
    asinh.default atan.default atan_.default cos.default cos_.default cosh.default cosh_.default
    sin.default sin_.default sinc.default sinc_.default sinh.default sinh_.default tan.default
    tan_.default tanh.default tanh_.default
    """,
    # Special functions
    """
    digamma.default digamma_.default erf.default erf_.default erfc.default erfc_.default
    erfinv.default erfinv_.default i0.default i0_.default lgamma.default lgamma_.default
    mvlgamma.default mvlgamma_.default special_erfcx.default special_i1.default
    special_log_ndtr.default special_ndtri.default
    """,
    # Activations
    """
    gelu.default gelu_.default glu.default mish.default mish_.default silu.default silu_.default
    """,
    # Reductions and scans (prod and cumprod: the derivative is right at zeros too)
    """
    cumprod.default cumprod_.default cumsum.default cumsum_.default mean.default mean.dim
    prod.default prod.dim_int sum.default sum.dim_IntList trace.default var.correction
    var_mean.correction
    """,
    # Matrix products
    """
    _trilinear.default addbmm.default addbmm_.default addmm.default addmm_.default addmv.default
    addmv_.default addr.default addr_.default baddbmm.default baddbmm_.default bmm.default
    dot.default linalg_cross.default mm.default mv.default vdot.default
    """,
    # Linear algebra, where the matrix is not singular (see POLES)
    """
    _linalg_slogdet.default _linalg_solve_ex.default linalg_inv_ex.default
    linalg_matrix_exp.default
    """,
    # Convolutions
    """
    _conv_depthwise2d.default _convolution.default _slow_conv2d_forward.default
    conv_depthwise3d.default conv_tbc.default convolution.default cudnn_convolution.default
    cudnn_convolution_transpose.default miopen_convolution.default
    miopen_convolution_transpose.default miopen_depthwise_convolution.default
    mkldnn_convolution.default slow_conv3d_forward.default slow_conv_dilated2d.default
    slow_conv_dilated3d.default slow_conv_transpose2d.default slow_conv_transpose3d.default
    """,
    # Normalizations (batch normalization in training: see CONDITIONAL for eps = 0)
    """
    _batch_norm_no_update.default _batch_norm_with_update.default _fused_rms_norm.default
    _native_batch_norm_legit.default _native_batch_norm_legit.no_stats
    _native_batch_norm_legit_no_training.default _weight_norm_interface.default
    cudnn_batch_norm.default miopen_batch_norm.default native_batch_norm.default
    native_group_norm.default native_layer_norm.default
    """,
    # Pooling by means, resampling with fixed sizes
    """
    _adaptive_avg_pool2d.default _adaptive_avg_pool3d.default _upsample_bicubic2d_aa.default
    _upsample_bilinear2d_aa.default _upsample_nearest_exact1d.default
    _upsample_nearest_exact2d.default _upsample_nearest_exact3d.default
    affine_grid_generator.default avg_pool2d.default avg_pool3d.default
    cudnn_affine_grid_generator.default upsample_bicubic2d.default upsample_bilinear2d.default
    upsample_linear1d.default upsample_nearest1d.default upsample_nearest2d.default
    upsample_nearest3d.default upsample_trilinear3d.default
    """,
    # Sums over constant indices
    """
    _unsafe_masked_index_put_accumulate.default col2im.default index_add.default
    index_add_.default scatter_add.default scatter_add_.default
    """,
    # Losses
    """
    binary_cross_entropy_with_logits.default mse_loss.default nll_loss2d_forward.default
    nll_loss_forward.default soft_margin_loss.default
    """,
    # Recurrent cells (mkldnn_rnn_layer refuses every mode but the LSTM)
    """
    _thnn_fused_gru_cell.default _thnn_fused_lstm_cell.default mkldnn_rnn_layer.default
    """,
    # Attention on the CPU, which refuses dropout (other devices: CONDITIONAL)
    """
    _scaled_dot_product_flash_attention_for_cpu.default
    """,
    # Fourier transforms
    """
    _fft_c2c.default _fft_c2r.default _fft_r2c.default
    """,
    # Lists of tensors
    """
    _foreach_add.List _foreach_add.Scalar _foreach_add.ScalarList _foreach_add.Tensor
    _foreach_add_.List _foreach_add_.Scalar _foreach_add_.ScalarList _foreach_add_.Tensor
    _foreach_addcdiv.Scalar _foreach_addcdiv.ScalarList _foreach_addcdiv_.Scalar
    _foreach_addcdiv_.ScalarList _foreach_addcmul.Scalar _foreach_addcmul.ScalarList
    _foreach_addcmul_.Scalar _foreach_addcmul_.ScalarList _foreach_atan.default
    _foreach_atan_.default _foreach_cos.default _foreach_cos_.default _foreach_cosh.default
    _foreach_cosh_.default _foreach_div.List _foreach_div.Scalar _foreach_div.ScalarList
    _foreach_div.Tensor _foreach_div_.List _foreach_div_.Scalar _foreach_div_.ScalarList
    _foreach_div_.Tensor _foreach_erf.default _foreach_erf_.default _foreach_erfc.default
    _foreach_erfc_.default _foreach_exp.default _foreach_exp_.default _foreach_expm1.default
    _foreach_expm1_.default _foreach_lerp.List _foreach_lerp.Scalar _foreach_lerp_.List
    _foreach_lerp_.Scalar _foreach_lgamma.default _foreach_lgamma_.default
    _foreach_log1p.default _foreach_log1p_.default _foreach_mul.List _foreach_mul.Scalar
    _foreach_mul.ScalarList _foreach_mul.Tensor _foreach_mul_.List _foreach_mul_.Scalar
    _foreach_mul_.ScalarList _foreach_mul_.Tensor _foreach_neg.default _foreach_neg_.default
    _foreach_sigmoid.default _foreach_sigmoid_.default _foreach_sin.default
    _foreach_sin_.default _foreach_sinh.default _foreach_sinh_.default _foreach_sub.List
    _foreach_sub.Scalar _foreach_sub.ScalarList _foreach_sub_.List _foreach_sub_.Scalar
    _foreach_sub_.ScalarList _foreach_tan.default _foreach_tan_.default _foreach_tanh.default
    _foreach_tanh_.default
    """,
    # Derivatives of the above, met when differentiating twice
    """
    _adaptive_avg_pool2d_backward.default _adaptive_avg_pool3d_backward.default
    _log_softmax_backward_data.default _softmax_backward_data.default
    avg_pool2d_backward.default avg_pool3d_backward.default batch_norm_backward.default
    convolution_backward.default gelu_backward.default glu_backward.default
    log_sigmoid_backward.default max_pool2d_with_indices_backward.default
    mse_loss_backward.default native_batch_norm_backward.default
    native_dropout_backward.default native_layer_norm_backward.default
    nll_loss2d_backward.default nll_loss_backward.default reflection_pad1d_backward.default
    reflection_pad2d_backward.default reflection_pad3d_backward.default
    replication_pad1d_backward.default replication_pad2d_backward.default
    replication_pad3d_backward.default sigmoid_backward.default
    soft_margin_loss_backward.default tanh_backward.default unfold_backward.default
    upsample_bicubic2d_backward.default upsample_bilinear2d_backward.default
    upsample_linear1d_backward.default upsample_nearest1d_backward.default
    upsample_nearest2d_backward.default upsample_nearest3d_backward.default
    upsample_trilinear3d_backward.default
    """,
)

# Where an ANALYTIC operation leaves its domain. The result is infinite or NaN there, not only the
# slope: looking at results is enough to notice.
POLES: Final = _named(
    {
        "div.Scalar div.Tensor div_.Scalar div_.Tensor": "division by 0",
        "addcdiv.default addcdiv_.default": "division by 0 (tensor2)",
        "log1p.default log1p_.default": "logarithm of 0 (input -1)",
        "tan.default tan_.default": "odd multiples of pi/2",
        "erfinv.default erfinv_.default": "input -1 or 1",
        "special_ndtri.default": "input 0 or 1",
        "lgamma.default lgamma_.default digamma.default digamma_.default": (
            "input 0, -1, -2 and so on"
        ),
        "mvlgamma.default mvlgamma_.default": "input (p-1)/2 and below",
        "logsumexp.default logcumsumexp.default": "a row with no finite entry",
        "_softmax.default _log_softmax.default": "a row with no finite entry",
        "linalg_inv_ex.default _linalg_solve_ex.default _linalg_slogdet.default": (
            "a singular matrix"
        ),
        "native_layer_norm.default native_group_norm.default _fused_rms_norm.default": (
            "eps = 0 and a constant (for the last: zero) row"
        ),
        "_native_batch_norm_legit_no_training.default _batch_norm_no_update.default": (
            "eps = 0 and a running variance of 0"
        ),
        "_weight_norm_interface.default": "a row of v that is 0",
        "nll_loss_forward.default nll_loss2d_forward.default": (
            "a mean over targets whose weights add up to 0"
        ),
    }
)

# Linear maps whose matrix has one 1 in a row, or none; and constants added or put in place.
STRUCTURAL: Final = _aten(
    # Views
    """
    _reshape_alias.default alias.default diagonal.default expand.default lift.default
    lift_fresh.default permute.default select.int slice.Tensor split.Tensor
    split_with_sizes.default squeeze.default squeeze.dim squeeze.dims squeeze_.default
    squeeze_.dim squeeze_.dims t.default t_.default transpose.int transpose_.default unbind.int
    unfold.default unsqueeze.default unsqueeze_.default view.default view_as_complex.default
    view_as_real.default
    """,
    # Gradient stopped on purpose (autograd's own saved values arrive as detach too)
    """
    detach.default detach_.default detach_copy.default
    """,
    # Copies (casts from floating point to integers: CONDITIONAL)
    """
    _foreach_clone.default _lazy_clone.default _pin_memory.default _reshape_copy.default
    _to_copy.default _unsafe_view.default alias_copy.default clone.default copy_.default
    diagonal_copy.default expand_copy.default lift_fresh_copy.default narrow_copy.default
    permute_copy.default select_copy.int slice_copy.Tensor split_copy.Tensor
    split_with_sizes_copy.default squeeze_copy.default squeeze_copy.dim squeeze_copy.dims
    t_copy.default transpose_copy.int unbind_copy.int unfold_copy.default unsafe_split.Tensor
    unsafe_split_with_sizes.default unsqueeze_copy.default view_as_real_copy.default
    view_copy.default
    """,
    # Rearranging and joining
    """
    _pack_padded_sequence.default block_diag.default cat.default channel_shuffle.default
    complex.default diag_embed.default flip.default im2col.default pixel_shuffle.default
    pixel_unshuffle.default repeat.default roll.default rot90.default stack.default
    """,
    # Padding and triangles
    """
    constant_pad_nd.default lu_unpack.default reflection_pad1d.default reflection_pad2d.default
    reflection_pad3d.default replication_pad1d.default replication_pad2d.default
    replication_pad3d.default tril.default tril_.default triu.default triu_.default
    """,
    # Constants written in place or in part
    """
    _foreach_zero_.default fill.Scalar fill.Tensor fill_.Scalar fill_.Tensor zero.default
    zero_.default
    """,
    # Reading and writing at constant indices (writes that may overlap are CONDITIONAL)
    """
    _unsafe_index.Tensor _unsafe_masked_index.default diagonal_backward.default
    diagonal_scatter.default gather.default index.Tensor index_fill.int_Scalar
    index_fill.int_Tensor index_fill_.int_Scalar index_fill_.int_Tensor index_select.default
    masked_fill.Scalar masked_fill.Tensor masked_fill_.Scalar masked_fill_.Tensor
    masked_scatter.default masked_scatter_.default masked_select.default scatter.value
    scatter_.value select_backward.default select_scatter.default slice_backward.default
    slice_scatter.default take.default where.self
    """,
)

CONSTANT: Final = _aten(
    # Factories
    """
    _efficientzerotensor.default arange.default arange.start arange.start_step
    empty.memory_format empty_permuted.default empty_strided.default eye.default eye.m
    full.default linspace.default logspace.default ones.default range.default range.step
    scalar_tensor.default tril_indices.default triu_indices.default zeros.default
    """,
    # Shapes taken from a tensor, values not
    """
    empty_like.default full_like.default new_empty.default new_empty_strided.default
    new_full.default new_ones.default new_zeros.default ones_like.default zeros_like.default
    """,
    # Windows and frequencies
    """
    bartlett_window.default bartlett_window.periodic blackman_window.default
    blackman_window.periodic fft_fftfreq.default fft_rfftfreq.default hamming_window.default
    hamming_window.periodic hamming_window.periodic_alpha hamming_window.periodic_alpha_beta
    hann_window.default hann_window.periodic kaiser_window.beta kaiser_window.default
    kaiser_window.periodic
    """,
    # Functions of integers, and checks without a result
    """
    _linalg_check_errors.default is_same_size.default repeat_interleave.Tensor
    """,
)

# What was drawn is a constant of the program. (_standard_gamma is not here: autograd differentiates
# its draw, although rejection sampling makes it jump.)
RANDOM: Final = _aten(
    # Drawn in place
    """
    bernoulli_.Tensor bernoulli_.float cauchy_.default exponential_.default geometric_.default
    log_normal_.default normal_.default random_.default random_.from random_.to uniform_.default
    """,
    # Drawn with a tensor's shape or parameters
    """
    bernoulli.Tensor bernoulli.default bernoulli.p binomial.default cauchy.default
    exponential.default geometric.default log_normal.default multinomial.default
    normal.Tensor_Tensor normal.Tensor_float normal.float_Tensor normal_functional.default
    poisson.default rand_like.default rand_like.generator randint_like.Tensor
    randint_like.Tensor_generator randint_like.default randint_like.generator
    randint_like.low_dtype randint_like.low_generator_dtype randn_like.default
    randn_like.generator random.default random.from random.to uniform.default
    """,
    # Drawn from nothing
    """
    normal.float_float rand.default rand.generator randint.default randint.generator randint.low
    randint.low_generator randn.default randn.generator randperm.default randperm.generator
    """,
    # Dropout: see DROPOUT
    """
    _fused_dropout.default native_dropout.default
    """,
)

# Members of RANDOM whose first result is no constant: the input times a drawn mask (the second
# result, a constant) times a factor.
DROPOUT: Final = _aten("_fused_dropout.default native_dropout.default")

# Analytic but for special inputs, where a slope is infinite or undefined while the result may be
# finite; or where autograd's formula fails although the slope exists.
SINGULAR: Final = _named(
    {
        "sqrt.default sqrt_.default _foreach_sqrt.default _foreach_sqrt_.default": (
            "at 0 the slope is infinite"
        ),
        "rsqrt.default rsqrt_.default _foreach_rsqrt.default _foreach_rsqrt_.default"
        " reciprocal.default reciprocal_.default"
        " _foreach_reciprocal.default _foreach_reciprocal_.default": ("at 0 the value is infinite"),
        "log.default log_.default log2.default log2_.default log10.default log10_.default"
        " _foreach_log.default _foreach_log_.default _foreach_log2.default _foreach_log2_.default"
        " _foreach_log10.default _foreach_log10_.default": "at 0 the value is infinite",
        "acos.default acos_.default asin.default asin_.default"
        " _foreach_acos.default _foreach_acos_.default"
        " _foreach_asin.default _foreach_asin_.default": "at -1 and 1 the slope is infinite",
        "acosh.default": "at 1 the slope is infinite",
        "atanh.default": "at -1 and 1 the value is infinite",
        "pow.Tensor_Scalar pow_.Scalar _foreach_pow.Scalar _foreach_pow_.Scalar"
        " _foreach_pow.ScalarList _foreach_pow_.ScalarList": (
            "at base 0, unless the exponent is a non-negative integer"
        ),
        "pow.Tensor_Tensor pow_.Tensor _foreach_pow.List _foreach_pow_.List": (
            "at base 0, unless the exponent is a constant non-negative integer"
        ),
        "pow.Scalar _foreach_pow.ScalarAndTensor": (
            "at base 0 a step: the power is 1 for exponent 0, and 0 for every larger one"
        ),
        "atan2.default atan2_.default": (
            "undefined slope where both arguments are 0; a step of 2 pi where the first is 0 and"
            " the second negative"
        ),
        "hypot.default hypot_.default": "where both arguments are 0; autograd gives NaN",
        "linalg_vector_norm.default norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype"
        " norm.ScalarOpt_dtype _foreach_norm.Scalar": (
            "order 2: at the zero vector; other orders also where an entry is 0 (below 2) or where"
            " absolute values tie for the largest (infinite order)"
        ),
        "_cdist_forward.default _euclidean_dist.default _pdist_forward.default dist.default": (
            "where two points coincide; for orders other than 2 also as for a norm of their"
            " difference"
        ),
        "std.correction std_mean.correction": "where all values of a row are equal",
        "xlogy.Tensor xlogy_.Tensor xlogy.Scalar_Self": (
            "where the second argument is 0: the value stays 0 if the first is 0, without a slope"
        ),
        "xlogy.Scalar_Other xlogy_.Scalar_Other": "never for a positive second argument",
        "special_xlog1py.default special_xlog1py.self_scalar": (
            "where the second argument is -1: the value stays 0 if the first is 0, without a slope"
        ),
        "special_xlog1py.other_scalar": "never for a second argument above -1",
        "special_entr.default": "at 0 the slope is infinite",
        "polygamma.default polygamma_.default": (
            "at 0, -1, -2 and so on the value is infinite, or huge by rounding"
        ),
        "igamma.default igammac.default igamma_.default igammac_.default": (
            "where the second argument is 0, the end of the domain"
        ),
        "nan_to_num.default nan_to_num_.default nansum.default": (
            "at NaN and infinite inputs, which constants replace"
        ),
        "_linalg_det.default": (
            "at a matrix whose elimination meets an exact zero, such as diag(1, 0, 2): autograd"
            " returns 0 in place of the cofactors"
        ),
        "_linalg_svd.default": (
            "at repeated or zero singular values; signs of singular vectors are arbitrary"
        ),
        "linalg_pinv.atol_rtol_tensor": "where the rank changes",
    }
)

DISCRETE: Final = _aten(
    # Comparisons
    """
    allclose.default eq.Scalar eq.Tensor eq_.Scalar eq_.Tensor equal.default ge.Scalar ge.Tensor
    ge_.Scalar ge_.Tensor gt.Scalar gt.Tensor gt_.Scalar gt_.Tensor isin.Scalar_Tensor
    isin.Tensor_Scalar isin.Tensor_Tensor isinf.default isnan.default isneginf.default
    isposinf.default le.Scalar le.Tensor le_.Scalar le_.Tensor lt.Scalar lt.Tensor lt_.Scalar
    lt_.Tensor ne.Scalar ne.Tensor ne_.Scalar ne_.Tensor signbit.default
    """,
    # Rounding and signs
    """
    ceil.default ceil_.default floor.default floor_.default floor_divide.Scalar
    floor_divide.default floor_divide_.Scalar floor_divide_.Tensor heaviside.default
    heaviside_.default round.decimals round.default round_.decimals round_.default sign.default
    sign_.default trunc.default trunc_.default
    """,
    # Remainders: see SAWTOOTH
    """
    fmod.Scalar fmod.Tensor fmod_.Scalar fmod_.Tensor frac.default frac_.default
    remainder.Scalar remainder.Scalar_Tensor remainder.Tensor remainder_.Scalar
    remainder_.Tensor
    """,
    # Positions and counts
    """
    argmax.default argmin.default bucketize.Scalar bucketize.Tensor count_nonzero.default
    count_nonzero.dim_IntList histc.default nonzero.default nonzero_static.default
    searchsorted.Scalar searchsorted.Tensor
    """,
    # Truth values
    """
    _is_all_true.default _is_any_true.default all.default all.dim all.dims any.default any.dim
    any.dims logical_and.default logical_and_.default logical_not.default logical_not_.default
    logical_or.default logical_or_.default logical_xor.default logical_xor_.default
    """,
    # Bits and integers
    """
    bitwise_and.Scalar bitwise_and.Scalar_Tensor bitwise_and.Tensor bitwise_and_.Scalar
    bitwise_and_.Tensor bitwise_left_shift.Scalar_Tensor bitwise_left_shift.Tensor
    bitwise_left_shift.Tensor_Scalar bitwise_left_shift_.Tensor
    bitwise_left_shift_.Tensor_Scalar bitwise_not.default bitwise_not_.default bitwise_or.Scalar
    bitwise_or.Scalar_Tensor bitwise_or.Tensor bitwise_or_.Scalar bitwise_or_.Tensor
    bitwise_right_shift.Scalar_Tensor bitwise_right_shift.Tensor
    bitwise_right_shift.Tensor_Scalar bitwise_right_shift_.Tensor
    bitwise_right_shift_.Tensor_Scalar bitwise_xor.Scalar bitwise_xor.Scalar_Tensor
    bitwise_xor.Tensor bitwise_xor_.Scalar bitwise_xor_.Tensor gcd.default gcd_.default
    lcm.default lcm_.default
    """,
    # Lists of tensors
    """
    _foreach_ceil.default _foreach_ceil_.default _foreach_floor.default _foreach_floor_.default
    _foreach_frac.default _foreach_frac_.default _foreach_round.default _foreach_round_.default
    _foreach_sign.default _foreach_sign_.default _foreach_trunc.default _foreach_trunc_.default
    """,
)

# Members of DISCRETE that are not flat between their jumps: slope 1 in the first argument.
SAWTOOTH: Final = _aten(
    """
    _foreach_frac.default _foreach_frac_.default fmod.Scalar fmod.Tensor fmod_.Scalar fmod_.Tensor
    frac.default frac_.default remainder.Scalar remainder.Scalar_Tensor remainder.Tensor
    remainder_.Scalar remainder_.Tensor
    """
)


@dataclass(frozen=True)
class Condition:
    """What an operation is depends on the arguments of the call.

    Attributes:
        op_class: Its class where `holds`.
        otherwise: Its class elsewhere; None: unknown.
        because: What is wrong where the condition does not hold.
        holds: Decides, from the arguments by their names in the schema, defaults filled in. Tensors
            are read: call it outside of any dispatch mode. False where an argument is missing.
    """

    op_class: OpClass
    otherwise: OpClass | None
    because: str
    holds: Callable[[Mapping[str, object]], bool]


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


def _conditions() -> Iterator[tuple[str, Condition]]:
    def state(
        names: str,
        holds: Callable[[Mapping[str, object]], bool],
        because: str,
        op_class: OpClass = OpClass.ANALYTIC,
        otherwise: OpClass | None = None,
    ) -> Iterator[tuple[str, Condition]]:
        condition = Condition(op_class, otherwise, because, holds)
        yield from ((name, condition) for name in sorted(_aten(names)))

    yield from state(
        "_batch_norm_with_update.default _native_batch_norm_legit.default"
        " _native_batch_norm_legit.no_stats batch_norm_backward.default cudnn_batch_norm.default"
        " miopen_batch_norm.default native_batch_norm.default native_batch_norm_backward.default",
        _positive_eps,
        "with eps = 0 a constant channel gives 0 where the slope is infinite",
    )
    yield from state(
        "embedding.default embedding_dense_backward.default",
        _no_padding_row,
        "autograd leaves out the row padding_idx, and with scale_grad_by_freq divides by counts:"
        " what it returns is not the derivative",
    )
    yield from state(
        "_embedding_bag.default",
        _sums_or_means,
        "mode max has kinks, and scale_grad_by_freq does not give the derivative",
    )
    overlap = (
        "writes that meet in one place: the last one counts, autograd gives all of them credit"
    )
    structural = OpClass.STRUCTURAL
    yield from state(
        "_index_put_impl_.default _unsafe_index_put.default index_put.default index_put_.default",
        _distinct_cells,
        overlap,
    )
    yield from state(
        "index_copy.default index_copy_.default scatter.src scatter_.src",
        _distinct_along,
        overlap,
        structural,
    )
    yield from state("put.default put_.default", _distinct_flat, overlap)
    yield from state(
        "index_reduce.default index_reduce_.default scatter_reduce.two scatter_reduce_.two",
        _linear_reduce,
        "amax and amin have kinks, and products no forward-mode derivative",
    )
    yield from state(
        "as_strided.default as_strided_copy.default",
        _inside_dense,
        "it reads memory outside of its input's own entries, which autograd cannot credit",
        structural,
    )
    yield from state(
        "_to_copy.default",
        _cast_keeps_fractions,
        "a cast from floating point to integers or booleans is a step function",
        structural,
        OpClass.DISCRETE,
    )
    yield from state(
        "copy_.default",
        _copy_keeps_fractions,
        "a copy of floating point values into integers or booleans is a step function",
        structural,
        OpClass.DISCRETE,
    )
    yield from state(
        "_foreach_pow.Scalar _foreach_pow.ScalarList _foreach_pow_.Scalar _foreach_pow_.ScalarList"
        " pow.Tensor_Scalar pow_.Scalar",
        _integer_exponents,
        "at base 0 a fractional exponent has an infinite slope, or leaves the domain",
        OpClass.ANALYTIC,
        OpClass.SINGULAR,
    )
    yield from state(
        "div.Scalar_mode div.Tensor_mode div_.Scalar_mode div_.Tensor_mode",
        _no_rounding,
        "a rounded quotient is a step function",
        OpClass.ANALYTIC,
        OpClass.DISCRETE,
    )
    yield from state("logit.default logit_.default", _no_eps, "eps clamps the input: two kinks")
    yield from state(
        "ldexp.Tensor ldexp_.default",
        _derived_exponent,
        "autograd's power of 2 is another than the function's: up to torch 2.13 it is 0 for"
        " negative integer exponents (2**-1 in integers)",
    )
    yield from state(
        "softplus.default softplus_backward.default",
        _off_threshold,
        "at the threshold softplus steps down to the identity, by exp(-threshold) / beta",
    )
    yield from state(
        "_efficient_attention_forward.default _flash_attention_forward.default"
        " _scaled_dot_product_cudnn_attention.default"
        " _scaled_dot_product_efficient_attention.default"
        " _scaled_dot_product_flash_attention.default",
        _no_dropout,
        "its dropout draws a mask that it does not return",
    )
    yield from state(
        "_cudnn_rnn.default", _smooth_cells, "a ReLU network, or dropout that it does not return"
    )
    yield from state(
        "linalg_lu_solve.default linalg_solve_triangular.default triangular_solve.default",
        _regular_triangle("LU", "A", "self"),
        "a zero on the diagonal: the matrix is singular",
    )
    yield from state(
        "sgn.default sgn_.default",
        _real,
        "of complex numbers it is z / |z|, undefined at 0",
        OpClass.DISCRETE,
    )


# Operations that are what a set says only for some arguments. Those in no set are unknown to
# `classify` unless it is told the arguments; those in a set (batch normalization, casts and copies,
# powers) are there by their usual arguments, or by the worst of them.
CONDITIONAL: Final[Mapping[str, Condition]] = MappingProxyType(dict(_conditions()))

# Known, and in none of the sets above on purpose: autograd's derivative is not the derivative of
# the function, or the function has steps or kinks. Most have a rule that says where, or a formula
# with which replays compare (`clarke.kinks.formulas`).
LEFT_OUT: Final = _named(
    {
        "_ctc_loss.Tensor _ctc_loss.default": (
            "autograd's formula is the derivative only where log_probs come from log_softmax"
        ),
        "polar.default": (
            "autograd's derivative in abs is 0 at abs = 0 and has the wrong sign below"
        ),
        "as_strided_scatter.default": (
            "autograd passes the gradient of overwritten entries on to the input"
        ),
        "linalg_cholesky_ex.default _linalg_eigh.default": (
            "reads one triangle, but autograd spreads the gradient over both: it is the derivative"
            " along symmetric matrices only"
        ),
        "cholesky_inverse.default cholesky_solve.default": (
            "reads one triangle of the factor, but autograd credits entries of the other"
        ),
        "linalg_eig.default": "eigenvectors are fixed up to a factor that jumps",
        "linalg_qr.default": (
            "columns change sign where a pivot passes 0, and autograd does not see the step"
        ),
        "linalg_lu.default linalg_lu_factor_ex.default": (
            "rows change places where pivots tie, and autograd does not see the step"
        ),
        "linalg_householder_product.default ormqr.default": (
            "autograd's formula divides by zero at regular inputs"
        ),
        "linalg_lstsq.default": "singular values and, in old versions, residuals are not derived",
        "_standard_gamma.default": "rejection sampling: the draw jumps as a function of alpha",
        "binary_cross_entropy.default": (
            "clamps logarithms at -100 but not their derivatives, which it clamps elsewhere"
        ),
        "special_i0e.default": "exp(-|x|) I0(x) has a kink at 0, where autograd gives 0",
        "special_i1e.default": "exp(-|x|) I1(x) is not analytic at 0",
        "special_bessel_j0.default special_bessel_j1.default special_bessel_y0.default"
        " special_bessel_y1.default special_airy_ai.default special_spherical_bessel_j0.default"
        " special_modified_bessel_i0.default special_modified_bessel_i1.default"
        " special_modified_bessel_k0.default special_modified_bessel_k1.default"
        " special_scaled_modified_bessel_k0.default special_scaled_modified_bessel_k1.default"
        " special_chebyshev_polynomial_t.default special_chebyshev_polynomial_u.default"
        " special_hermite_polynomial_h.default special_hermite_polynomial_he.default"
        " special_laguerre_polynomial_l.default special_legendre_polynomial_p.default": (
            "autograd takes the result for a constant, although it depends on the input"
        ),
        "linspace.Tensor_Scalar linspace.Tensor_Tensor linspace.Scalar_Tensor"
        " logspace.Tensor_Scalar logspace.Tensor_Tensor logspace.Scalar_Tensor": (
            "autograd takes the result for a constant, although it depends on the ends"
        ),
        "fake_quantize_per_tensor_affine_cachemask.default"
        " fake_quantize_per_channel_affine_cachemask.default"
        " _fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default"
        " _fake_quantize_learnable_per_tensor_affine.default"
        " _fake_quantize_learnable_per_channel_affine.default": (
            "a step function with a declared derivative (straight through)"
        ),
        "max_unpool2d.default max_unpool3d.default": (
            "where overlapping windows chose the same place the last one counts, autograd gives all"
            " of them credit"
        ),
        "copysign.Tensor copysign.Scalar": "a kink at 0",
        "angle.default": "a step at 0",
        "frexp.Tensor nextafter.default": "jumps",
        "view.dtype": "reads bits as another type",
        "_local_scalar_dense.default": "hands a value to Python, where no mode can follow it",
    }
)

# Names above that torch 2.6, or 2.14, does not have.
OTHER_VERSIONS: Final = _aten(
    """
    _foreach_clone.default _fused_rms_norm.default rand_like.generator randint_like.Tensor
    randint_like.Tensor_generator randint_like.generator randint_like.low_generator_dtype
    randn_like.generator
    """
)

# Of these, complex arguments cross branch cuts, where the value jumps.
_CUTS: Final = frozenset(
    {"_linalg_svd", "acos", "acosh", "asin", "asinh", "atan", "atanh", "log", "log10", "log1p"}
    | {"log2", "logaddexp", "logaddexp2", "logcumsumexp", "logsumexp", "pow", "rsqrt", "sqrt"}
)

_SETS: Final = MappingProxyType(
    {
        OpClass.ANALYTIC: ANALYTIC,
        OpClass.STRUCTURAL: STRUCTURAL,
        OpClass.CONSTANT: CONSTANT,
        OpClass.RANDOM: RANDOM,
        OpClass.SINGULAR: frozenset(SINGULAR),
        OpClass.DISCRETE: DISCRETE,
    }
)
_CLASS_OF: Final = MappingProxyType({n: c for c, names in _SETS.items() for n in names})


def classify(name: str, arguments: Mapping[str, object] | None = None) -> OpClass | None:
    """What the operation is; None: not known, and never to be taken for smooth.

    Args:
        name: The dispatcher's name of an overload, such as ``"aten::addmm.default"``.
        arguments: The arguments of one call, from `bind`. With them the answer is about this call:
            some operations are known only so (`CONDITIONAL`), none is known for sparse tensors, and
            functions with a branch cut are not known for complex numbers. Tensors may be read, so
            call it outside of any dispatch mode.
    """
    known = _CLASS_OF.get(name)
    if arguments is None:
        return known
    parts = list(_parts(arguments.values()))
    if any(isinstance(p, torch.Tensor) and p.layout is not torch.strided for p in parts):
        return None
    if has_cut(name) and any(map(_is_complex, parts)):
        return None
    condition = CONDITIONAL.get(name)
    if condition is None:
        return known
    return condition.op_class if condition.holds(arguments) else condition.otherwise


def has_cut(name: str) -> bool:
    """Whether the operation jumps along a line of the complex plane."""
    return _stem(name) in _CUTS


def why_not(name: str) -> str | None:
    """Why `classify` may not know an operation, in words; None where there is nothing to say."""
    condition = CONDITIONAL.get(name)
    return LEFT_OUT.get(name) if condition is None else condition.because


def bind(func: Any, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
    """The arguments of a call by their names in the overload's schema, defaults filled in."""
    bound: dict[str, object] = {}
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def _stem(name: str) -> str:
    """The operator without namespace, overload, ``_foreach_`` and the in-place underscore."""
    operator = name.rpartition("::")[2].partition(".")[0]
    return operator.removeprefix("_foreach_").removesuffix("_")


def _parts(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _parts(value)
        else:
            yield value


def _is_complex(value: object) -> bool:
    return isinstance(value, complex) or (isinstance(value, torch.Tensor) and value.is_complex())
