"""Operations that are analytic except at special inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.kinks import singular as at
from clarke.kinks.model import Hazard
from clarke.kinks.singular import SingularRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.kinks.model import KinkRule


def singular_points() -> Iterator[tuple[str, KinkRule]]:
    """(operator with overload, rule)."""
    cut = ((at.on_the_negative_axis, Hazard.STEP),)
    for name in ("sqrt", "rsqrt", "log", "log2", "log10"):
        yield name, SingularRule(at.first_is_zero, more=cut, complex_too=True)
    yield "reciprocal", SingularRule(at.first_is_zero, complex_too=True)
    yield "special_entr", SingularRule(at.first_is_zero)
    for name in ("acos", "asin", "acosh", "atanh"):
        yield name, SingularRule(at.first_is_plus_minus_one)
    for name in ("Tensor_Scalar", "Tensor_Tensor"):
        yield f"pow.{name}", SingularRule(at.power_is_special, never=at.power_is_natural)
    yield "pow.Scalar", SingularRule(at.zero_to_the_zero, Hazard.STEP)
    yield "atan2", SingularRule(at.both_are_zero, more=((at.on_the_cut, Hazard.STEP),))
    yield "hypot", SingularRule(at.both_are_zero, Hazard.CONE)
    for name in ("Tensor", "Scalar_Self", "Scalar_Other"):
        yield f"xlogy.{name}", SingularRule(at.logarithm_of_zero)
    for name in ("default", "self_scalar", "other_scalar"):
        yield f"special_xlog1py.{name}", SingularRule(at.logarithm_of_one_minus_one)
    yield "std.correction", SingularRule(at.spread_is_zero, Hazard.CONE)
    yield (
        "linalg_vector_norm",
        SingularRule(
            at.norm_of_zero,
            Hazard.CONE,
            more=(
                (at.norm_is_irregular, Hazard.SEVERAL),
                (at.norm_is_steep, Hazard.INFINITE_SLOPE),
                (at.norm_counts, Hazard.STEP),
            ),
        ),
    )
    for name in ("nan_to_num", "nansum"):
        yield name, SingularRule(at.first_is_not_finite)
    yield "_linalg_svd", SingularRule(at.singular_values_meet, Hazard.SEVERAL)
    yield (
        "linalg_pinv.atol_rtol_tensor",
        SingularRule(at.rank_is_deficient, Hazard.STEP),
    )
    sampler = SingularRule(
        at.on_a_cell_border, Hazard.SEVERAL, more=((at.between_neighbours, Hazard.STEP),)
    )
    yield "grid_sampler_2d", sampler
    yield "grid_sampler_3d", sampler
    yield "softplus", SingularRule(at.at_the_threshold, Hazard.STEP)
    yield "renorm", SingularRule(at.length_is_the_limit, Hazard.STEP)
    yield "binary_cross_entropy", SingularRule(at.probability_is_extreme, Hazard.FORMULA)
    for name in ("_unique", "_unique2", "unique_consecutive", "unique_dim"):
        yield name, SingularRule(at.is_repeated, Hazard.STEP)
    yield "mode", SingularRule(at.has_repeats, Hazard.STEP)
    yield "polygamma", SingularRule(at.is_pole_of_polygamma)
