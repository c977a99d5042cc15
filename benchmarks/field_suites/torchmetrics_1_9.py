"""torchmetrics: the differentiable metrics, as functions."""

from torchmetrics.functional import audio, image, pairwise, regression

from field_suites import anywhere, inside

ROW, TABLES = ((5,), (5,)), ((3, 2), (3, 2))
IMAGES = ((1, 3, 6, 6), (1, 3, 6, 6))
SOUNDS = ((1, 12), (1, 12))

PROGRAMS = (
    *(
        anywhere(n, getattr(regression, n), *ROW)
        for n in (
            *("mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error"),
            *("symmetric_mean_absolute_percentage_error", "explained_variance", "r2_score"),
            *("weighted_mean_absolute_percentage_error", "relative_squared_error"),
            *("pearson_corrcoef", "concordance_corrcoef", "log_cosh_error"),
        )
    ),
    anywhere("minkowski_distance", lambda a, b: regression.minkowski_distance(a, b, 3), *ROW),
    inside("mean_squared_log_error", regression.mean_squared_log_error, *ROW),
    inside(
        "tweedie_deviance_score", lambda a, b: regression.tweedie_deviance_score(a, b, 1.5), *ROW
    ),
    inside("kl_divergence", regression.kl_divergence, *TABLES),
    *(
        anywhere(n, getattr(audio, n), *SOUNDS)
        for n in (
            *("signal_noise_ratio", "scale_invariant_signal_noise_ratio"),
            "scale_invariant_signal_distortion_ratio",
        )
    ),
    *(
        anywhere(n, getattr(pairwise, n), *TABLES)
        for n in (
            *("pairwise_cosine_similarity", "pairwise_euclidean_distance"),
            *("pairwise_manhattan_distance", "pairwise_linear_similarity"),
        )
    ),
    inside("total_variation", image.total_variation, (1, 3, 4, 4)),
    inside(
        "peak_signal_noise_ratio",
        lambda a, b: image.peak_signal_noise_ratio(a, b, data_range=1.0),
        *IMAGES,
    ),
    inside(
        "universal_image_quality_index",
        lambda a, b: image.universal_image_quality_index(a, b, kernel_size=(3, 3)),
        *IMAGES,
    ),
    inside("spectral_angle_mapper", image.spectral_angle_mapper, (1, 3, 3, 3), (1, 3, 3, 3)),
)
