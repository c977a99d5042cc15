"""Operations with special inputs, and those that are in no set on purpose."""

from __future__ import annotations

from typing import Final

from clarke.kinks.smooth.model import named

# Analytic but for special inputs, where a slope is infinite or undefined while the result may be
# finite; or where autograd's formula fails although the slope exists.
SINGULAR: Final = named(
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

# Known, and in none of the sets above on purpose: autograd's derivative is not the derivative of
# the function, or the function has steps or kinks. Most have a rule that says where, or a formula
# with which replays compare (`clarke.kinks.formulas`).
LEFT_OUT: Final = named(
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
