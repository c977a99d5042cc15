"""Results whose derivative is 0 wherever there is one: constants, draws, steps."""

from __future__ import annotations

from typing import Final

from clarke.kinks.smooth.model import aten

CONSTANT: Final = aten(
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
RANDOM: Final = aten(
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
DROPOUT: Final = aten("_fused_dropout.default native_dropout.default")

DISCRETE: Final = aten(
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
SAWTOOTH: Final = aten(
    """
    _foreach_frac.default _foreach_frac_.default fmod.Scalar fmod.Tensor fmod_.Scalar fmod_.Tensor
    frac.default frac_.default remainder.Scalar remainder.Scalar_Tensor remainder.Tensor
    remainder_.Scalar remainder_.Tensor
    """
)
