"""kornia: losses, colours, filters and warps of images."""

import torch
from kornia import color, enhance, filters, geometry, losses, morphology

from field_suites import anywhere, inside

IMAGE, PAIR = (1, 3, 5, 5), ((1, 3, 5, 5), (1, 3, 5, 5))
GRAY = (1, 1, 5, 5)
CLASSES = torch.arange(9).reshape(1, 3, 3) % 3
BINARY = (torch.arange(9).reshape(1, 3, 3) % 2).to(torch.float64)
KERNEL = torch.ones(3, 3, dtype=torch.float64)
TURN = torch.tensor([30.0], dtype=torch.float64)

PROGRAMS = (
    *(
        anywhere(n, getattr(losses, n), *PAIR)
        for n in ("charbonnier_loss", "cauchy_loss", "geman_mcclure_loss", "welsch_loss")
    ),
    inside("ssim_loss", lambda a, b: losses.ssim_loss(a, b, 3), *PAIR),
    inside("psnr_loss", lambda a, b: losses.psnr_loss(a, b, 1.0), *PAIR),
    anywhere("dice_loss", lambda x: losses.dice_loss(x, CLASSES), (1, 3, 3, 3)),
    anywhere("tversky_loss", lambda x: losses.tversky_loss(x, CLASSES, 0.5, 0.5), (1, 3, 3, 3)),
    anywhere(
        "focal_loss",
        lambda x: losses.focal_loss(x, CLASSES, alpha=0.5, reduction="mean"),
        (1, 3, 3, 3),
    ),
    anywhere(
        "binary_focal_loss_with_logits",
        lambda x: losses.binary_focal_loss_with_logits(x, BINARY, reduction="mean"),
        (1, 3, 3),
    ),
    anywhere("lovasz_hinge_loss", lambda x: losses.lovasz_hinge_loss(x, BINARY), (1, 1, 3, 3)),
    anywhere("lovasz_softmax_loss", lambda x: losses.lovasz_softmax_loss(x, CLASSES), (1, 3, 3, 3)),
    anywhere("total_variation", losses.total_variation, IMAGE),
    anywhere("inverse_depth_smoothness_loss", losses.inverse_depth_smoothness_loss, GRAY, IMAGE),
    *(
        inside(n, getattr(color, n), (1, 3, 2, 2))
        for n in (
            *("rgb_to_hsv", "rgb_to_hls", "rgb_to_lab", "rgb_to_luv", "rgb_to_grayscale"),
            *("rgb_to_ycbcr", "rgb_to_linear_rgb"),
        )
    ),
    inside("adjust_saturation", lambda x: enhance.adjust_saturation(x, 1.5), (1, 3, 2, 2)),
    inside("adjust_contrast", lambda x: enhance.adjust_contrast(x, 1.5), (1, 3, 2, 2)),
    anywhere("median_blur", lambda x: filters.median_blur(x, 3), GRAY),
    anywhere("gaussian_blur2d", lambda x: filters.gaussian_blur2d(x, (3, 3), (1.0, 1.0)), GRAY),
    anywhere("sobel", filters.sobel, GRAY),
    anywhere("laplacian", lambda x: filters.laplacian(x, 3), GRAY),
    anywhere("dilation", lambda x: morphology.dilation(x, KERNEL), GRAY),
    anywhere("erosion", lambda x: morphology.erosion(x, KERNEL), GRAY),
    anywhere("rotate", lambda x: geometry.rotate(x, TURN), GRAY),
    anywhere("resize", lambda x: geometry.resize(x, (3, 3)), GRAY),
    inside("angle_axis_to_rotation", geometry.axis_angle_to_rotation_matrix, (2, 3)),
)
