"""Well-known losses and layers, each written in a way that is wrong at a kink, and in a right way.

Nothing here says where the bad point is: that is what a hunt has to find.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812 - as users write it


@dataclass(frozen=True)
class Case:
    """A function in two forms.

    Attributes:
        name: What it computes.
        wrong: Wrong at a point that one has to find.
        right: The same, or much the same, and right everywhere.
        shapes: Of its arguments.
        variables: How many of them require gradients.
    """

    name: str
    wrong: Callable[..., torch.Tensor]
    right: Callable[..., torch.Tensor]
    shapes: tuple[tuple[int, ...], ...]
    variables: int = 1

    def example(self) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(len(self.name))
        made = [
            torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_(
                i < self.variables
            )
            for i, s in enumerate(self.shapes)
        ]
        return tuple(made)


def root(x: torch.Tensor) -> torch.Tensor:
    """A norm as it is written by hand: the slope of the root is infinite at zero."""
    return (x * x).sum(-1).sqrt()


def norm(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=-1)


def bce_wrong(x, t):
    return (torch.clamp(x, min=0) - x * t + torch.log1p(torch.exp(-torch.abs(x)))).mean()


def bce_right(x, t):
    return F.binary_cross_entropy_with_logits(x, t)


def softplus_wrong(x):
    return (torch.relu(x) + torch.log1p(torch.exp(-x.abs()))).sum()


def softplus_right(x):
    return F.softplus(x).sum()


def huber_wrong(x, t):
    d = x - t
    return (0.5 * F.hardtanh(d) ** 2 + torch.relu(d - 1) + torch.relu(-d - 1)).mean()


def huber_right(x, t):
    d = (x - t).abs()
    return torch.where(d <= 1, 0.5 * d * d, d - 0.5).mean()


def wing_wrong(x, t):
    d = ((x - t) ** 2).sqrt()
    return torch.where(d < 10, 10 * torch.log(1 + d / 2), d - 10 + 10 * math.log(6)).sum()


def wing_right(x, t):
    d = (x - t).abs()
    return torch.where(d < 10, 10 * torch.log(1 + d / 2), d - 10 + 10 * math.log(6)).sum()


def focal_wrong(x):
    loss = torch.relu(-x) + torch.log1p(torch.exp(-x.abs()))
    return ((1 - torch.sigmoid(x)) ** 2 * loss).sum()


def focal_right(x):
    return ((1 - torch.sigmoid(x)) ** 2 * F.softplus(-x)).sum()


def _overlap(a, b, positive):
    low = torch.maximum(a[:, :2], b[:, :2])
    high = torch.minimum(a[:, 2:], b[:, 2:])
    inner = positive(high - low).prod(1)
    area = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return inner, area - inner


def _clamped(x):
    return x.clamp(min=0)


def iou_wrong(a, b):
    inner, union = _overlap(a, b, _clamped)
    return (1 - inner / (union.abs() + 1)).sum()


def iou_right(a, b):
    inner, union = _overlap(a, b, torch.relu)
    return (1 - inner / (union + 1)).sum()


def box_distance_wrong(a, b):
    d = a - b
    return (d.clamp(min=0) + d.clamp(max=0)).sum()


def box_distance_right(a, b):
    return (a - b).sum()


def triplet_wrong(a, p, n):
    return torch.relu(root(a - p) - root(a - n) + 1).mean()


def triplet_right(a, p, n):
    return torch.relu(norm(a - p) - torch.sqrt(((a - n) ** 2).sum(-1) + 1) + 1).mean()


def contrastive_wrong(a, b):
    return (torch.relu(1 - root(a - b)) ** 2).mean()


def contrastive_right(a, b):
    return (torch.relu(1 - norm(a - b)) ** 2).mean()


def pinball_wrong(x, t):
    d = t - x
    return (0.5 * torch.sqrt(d * d) + 0.4 * d).mean()


def pinball_right(x, t):
    d = t - x
    return torch.maximum(0.9 * d, -0.1 * d).mean()


def ppo_wrong(logp, old, advantage):
    ratio = torch.exp(logp - old)
    return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()


def ppo_right(logp, old, advantage):
    ratio = torch.exp((logp - old).clamp(-20, 20))
    return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()


def hinge_wrong(score):
    return (torch.relu(1 - score) - 0.5 * torch.relu(score - 1)).sum()


def hinge_right(score):
    return torch.relu(1 - score).sum()


def angle_wrong(a, b):
    cosine = (a * b).sum(-1) / (norm(a) * norm(b) + 1e-300)
    return torch.acos(cosine.clamp(-1, 1)).sum()


def angle_right(a, b):
    cosine = (a * b).sum(-1) / (torch.sqrt((a * a).sum(-1) + 1) * torch.sqrt((b * b).sum(-1) + 1))
    return torch.acos(cosine).sum()


def axis_angle_wrong(r):
    theta = root(r)
    return (torch.sin(theta) * r.sum(-1)).sum()


def axis_angle_right(r):
    theta = torch.sqrt((r * r).sum(-1) + 1e-6)
    return (torch.sin(theta) * r.sum(-1)).sum()


def projection_wrong(x):
    return (x * torch.minimum(torch.ones(1).double(), 1 / root(x))[..., None]).sum()


def projection_right(x):
    return (x / torch.maximum(torch.ones(1).double(), norm(x))[..., None]).sum()


def pairwise_wrong(x):
    d = ((x[:, None] - x[None]) ** 2).sum(-1)
    return torch.sqrt(d.clamp(min=0) + 1 - torch.eye(len(x)).double()).sum() + d.sqrt().sum() * 0


def pairwise_right(x):
    return (((x[:, None] - x[None]) ** 2).sum(-1) + 1).sqrt().sum()


def norm_wrong(x):
    return root(x).sum()


def norm_right(x):
    return norm(x).sum()


def quantiser_wrong(x):
    return (F.hardtanh(x) + torch.relu(x - 1) - torch.relu(-x - 1)).sum()


def quantiser_right(x):
    return (F.hardtanh(x) * 2).sum()


def sparsemax_wrong(z):
    """Two classes: the entry at the border counts for the threshold, and then is cut off."""
    high, low = torch.maximum(z[..., 0], z[..., 1]), torch.minimum(z[..., 0], z[..., 1])
    both = high - low <= 1
    tau = torch.where(both, (high + low - 1) / 2, high - 1)
    return (torch.relu(high - tau) + 2 * torch.relu(low - tau)).sum()


def sparsemax_right(z):
    share = ((z[..., 0] - z[..., 1] + 1) / 2).clamp(0, 1)
    return (share + 2 * (1 - share)).sum()


def soft_threshold_wrong(x):
    soft = torch.sign(x) * (x.abs() - 1).clamp(min=0)
    return (0.5 * (soft - x) ** 2 + soft.abs()).sum()


def soft_threshold_right(x):
    soft = x - x.clamp(-1, 1)
    return (0.5 * (soft - x) ** 2).sum()


def leaky_wrong(x):
    return (torch.relu(x) - 0.1 * torch.relu(-x)).sum()


def leaky_right(x):
    return F.leaky_relu(x, 0.1).sum()


def hard_sigmoids_wrong(x):
    return ((x / 6 + 0.5).clamp(0, 1) + F.hardsigmoid(-x)).sum()


def hard_sigmoids_right(x):
    return (F.hardsigmoid(x) + F.hardsigmoid(-x)).sum()


def clamp_chain_wrong(x):
    return (x.clamp(min=2) + x.clamp(max=2)).sum()


def clamp_chain_right(x):
    high = x.clamp(min=2)
    return (high + (x - high)).sum()


def max_by_parts_wrong(a, b):
    return ((a - b).clamp(min=0) + torch.minimum(a, b)).sum()


def max_by_parts_right(a, b):
    return torch.where(a >= b, a, b).sum()


def median_wrong(x):
    return (x.sum(-1) - x.max(-1).values - x.min(-1).values).sum()


def median_right(x):
    return x.median(-1).values.sum()


def logaddexp_wrong(a, b):
    return (b + torch.relu(a - b) + torch.log1p(torch.exp(-(a - b).abs()))).sum()


def logaddexp_right(a, b):
    return torch.logaddexp(a, b).sum()


def cosine_wrong(a, b):
    return ((a * b).sum(-1) / (root(a) * root(b)).clamp(min=1e-8)).sum()


def cosine_right(a, b):
    return ((a * b).sum(-1) / (torch.sqrt((a * a).sum(-1) + 1e-8) * (1 + norm(b)))).sum()


def sinc_wrong(x):
    return torch.where(x == 0, torch.ones_like(x), torch.sin(x) / x).sum()


def sinc_right(x):
    return torch.sinc(x).sum()


def power_wrong(x):
    return torch.where(x > 0, x * torch.sqrt(x), torch.zeros_like(x)).sum()


def power_right(x):
    return (torch.relu(x) ** 1.5).sum()


def elu_wrong(x):
    return (torch.relu(x) + torch.exp(-torch.relu(-x)) - 1).sum()


def elu_right(x):
    return F.elu(x).sum()


def prelu_wrong(x):
    return (torch.relu(x) + 0.25 * (x - x.abs()) / 2).sum()


def prelu_right(x):
    return torch.where(x > 0, x, 0.25 * x).sum()


def box_sdf_wrong(p):
    q = p.abs() - 1
    return (root(q.clamp(min=0)) + q.amax(-1).clamp(max=0)).sum()


def box_sdf_right(p):
    return (p.abs() - 1).amax(-1).sum()


def masked_softplus_wrong(x):
    return torch.where(x > 20, x, torch.log1p(torch.exp(x))).sum()


def masked_softplus_right(x):
    return torch.where(x > 20, x, torch.log1p(torch.exp(x.clamp(max=20)))).sum()


def ciou_aspect_wrong(box):
    """The aspect ratio of complete IoU: a box of no height makes infinity times zero."""
    wide, high = (box[:, 2:] - box[:, :2]).unbind(1)
    return ((torch.atan(wide / high.clamp(min=0)) - 1) ** 2).sum()


def ciou_aspect_right(box):
    wide, high = (box[:, 2:] - box[:, :2]).unbind(1)
    return ((torch.atan2(wide, torch.relu(high) + 1e-3) - 1) ** 2).sum()


def giou(a, b):
    """Generalized IoU by hand: where the overlap's kinks are, those of the hull make up for them."""
    inner, union = _overlap(a, b, _clamped)
    hull = _clamped(torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return (1 - inner / (union.abs() + 1) + (hull - union) / (hull + 1)).sum()


def diou_wrong(a, b):
    inner, union = _overlap(a, b, _clamped)
    apart = root(a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:])
    return (inner / (union.abs() + 1) - apart).sum()


def diou_right(a, b):
    apart = norm(a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:])
    return apart.sum()


def signed_margin_wrong(a, b):
    gap = a - b
    return (torch.relu(gap) - torch.relu(-gap)).mean()


def signed_margin_right(a, b):
    return torch.relu(a - b).mean()


_SHAPES = {
    **dict.fromkeys(("bce", "huber", "wing", "pinball", "max_by_parts", "logaddexp"), ((4,), (4,))),
    **dict.fromkeys(("iou", "box_distance", "diou"), ((2, 4), (2, 4))),
    **dict.fromkeys(("contrastive", "angle", "cosine"), ((2, 3), (2, 3))),
    "signed_margin": ((4,), (4,)),
    "triplet": ((2, 3), (2, 3), (2, 3)),
    "ppo": ((4,), (4,), (4,)),
    **dict.fromkeys(
        ("axis_angle", "projection", "pairwise", "norm", "median", "box_sdf"), ((3, 3),)
    ),
    "sparsemax": ((3, 2),),
    "ciou_aspect": ((2, 4),),
}
_NAMES = tuple(n.removesuffix("_wrong") for n in list(globals()) if n.endswith("_wrong"))
CASES = tuple(
    Case(
        n,
        globals()[f"{n}_wrong"],
        globals()[f"{n}_right"],
        _SHAPES.get(n, ((4,),)),
        2 if n == "max_by_parts" else 1,
    )
    for n in _NAMES
)
