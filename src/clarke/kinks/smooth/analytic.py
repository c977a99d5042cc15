"""Analytic operations, and where they leave their domain."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from clarke.kinks.smooth.model import aten, named

ANALYTIC: Final = aten(
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
    _sparse_addmm.default _trilinear.default addbmm.default addbmm_.default addmm.default
    addmm_.default addmv.default addmv_.default addr.default addr_.default baddbmm.default
    baddbmm_.default bmm.default dot.default linalg_cross.default mm.default mv.default vdot.default
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
    _upsample_bicubic2d_aa_backward.default _upsample_bilinear2d_aa_backward.default
    _upsample_nearest_exact1d_backward.default _upsample_nearest_exact2d_backward.default
    _upsample_nearest_exact3d_backward.default adaptive_max_pool2d_backward.default
    adaptive_max_pool3d_backward.default
    avg_pool2d_backward.default avg_pool3d_backward.default batch_norm_backward.default
    convolution_backward.default gelu_backward.default glu_backward.default
    log_sigmoid_backward.default max_pool2d_with_indices_backward.default
    max_pool3d_with_indices_backward.default
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
POLES: Final = named(
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

# Which argument leads there, of those that parameters can lead there by themselves: rows of
# infinities, and normalizations without eps, have reasons of their own.
POLE_ARGUMENTS: Final = MappingProxyType(
    {
        "div": 1,
        "addcdiv": 2,
        **dict.fromkeys(("log1p", "tan", "erfinv", "special_ndtri"), 0),
        **dict.fromkeys(("lgamma", "digamma", "mvlgamma", "_weight_norm_interface"), 0),
        **dict.fromkeys(("linalg_inv_ex", "_linalg_solve_ex", "_linalg_slogdet"), 0),
    }
)
