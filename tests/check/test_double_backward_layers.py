"""Second derivatives through layers: what backward passes keep is followed, kinks are found."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.verdict import Verdict

D = torch.float64
ROWS = torch.tensor([0, 1, 1])


def scaled(function):
    """A layer with one weight an input, in front of a function."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6))

        def forward(self, x):
            return function(x * self.weight)

    return Scaled()


def behind(*layers, conv=0):
    first = nn.Conv2d(2, conv, 2) if conv else nn.Linear(6, 6)
    return nn.Sequential(first, *layers)


LAYERS = {
    "layer_norm": lambda: behind(nn.LayerNorm(6), nn.Tanh()),
    "layer_norm without weights": lambda: behind(nn.LayerNorm(6, elementwise_affine=False)),
    "group_norm": lambda: behind(nn.GroupNorm(2, 6), nn.Tanh()),
    "batch_norm": lambda: behind(nn.BatchNorm1d(6), nn.Tanh()),
    "batch_norm in evaluation": lambda: behind(nn.BatchNorm1d(6), nn.Tanh()).eval(),
    "batch_norm without statistics": lambda: behind(
        nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh()
    ),
    "batch_norm of images": lambda: behind(nn.BatchNorm2d(3), nn.SiLU(), conv=3),
    "instance_norm": lambda: behind(nn.InstanceNorm2d(3, affine=True), nn.SiLU(), conv=3),
    "rms_norm": lambda: behind(nn.RMSNorm(6), nn.Tanh()),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)),
    "var_mean": lambda: scaled(lambda x: torch.var_mean(x, 1)[0] * torch.var_mean(x, 1)[1]),
    "softmax": lambda: scaled(lambda x: x.softmax(1)),
    "log_softmax": lambda: scaled(lambda x: x.log_softmax(1)),
    "logsumexp": lambda: scaled(lambda x: x.logsumexp(1)),
    "cross entropy": lambda: scaled(lambda x: F.cross_entropy(x, torch.arange(len(x)))),
    "nll of images": lambda: scaled(
        lambda x: F.nll_loss(x.view(1, 2, 2, 6).log_softmax(1), torch.zeros(1, 2, 6).long())
    ),
    "binary cross entropy": lambda: scaled(
        lambda x: F.binary_cross_entropy(x.sigmoid(), torch.full_like(x, 0.3))
    ),
    "mse": lambda: scaled(lambda x: F.mse_loss(x, torch.zeros_like(x))),
    "huber": lambda: scaled(lambda x: F.huber_loss(x, torch.zeros_like(x))),
    "smooth l1": lambda: scaled(lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), beta=0.5)),
    "soft margin": lambda: scaled(lambda x: F.soft_margin_loss(x, torch.ones_like(x))),
    "kl": lambda: scaled(
        lambda x: F.kl_div(x.log_softmax(1), x.roll(1, 0).softmax(1), reduction="batchmean")
    ),
    "attention": lambda: scaled(
        lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None])
    ),
    "max_pool": lambda: behind(nn.MaxPool2d(2), nn.Tanh(), conv=3),
    "max_pool3d": lambda: scaled(lambda x: F.max_pool3d(x.view(1, 1, 2, 2, 6), 2)),
    "adaptive max_pool": lambda: scaled(lambda x: F.adaptive_max_pool1d(x[None], 3)),
    "interpolate": lambda: scaled(
        lambda x: F.interpolate(x.view(1, 2, 2, 6), size=(2, 2), mode="bilinear", antialias=True)
    ),
    "nearest-exact": lambda: scaled(
        lambda x: F.interpolate(x.view(1, 2, 2, 6), scale_factor=2, mode="nearest-exact")
    ),
    "embedding": lambda: scaled(lambda x: F.embedding(ROWS, x).tanh()),
    "prelu": lambda: behind(nn.PReLU(), nn.Linear(6, 2)),
    "elu": lambda: behind(nn.ELU(), nn.Linear(6, 2)),
    "celu": lambda: behind(nn.CELU(0.5), nn.Linear(6, 2)),
    "hardswish": lambda: behind(nn.Hardswish(), nn.Linear(6, 2)),
    "rrelu": lambda: behind(nn.RReLU(), nn.Linear(6, 2)),
    "elu in place": lambda: behind(nn.ELU(inplace=True), nn.Linear(6, 2)),
    "relu in place": lambda: behind(nn.ReLU(inplace=True), nn.Linear(6, 2)),
    "leaky in place": lambda: behind(nn.LeakyReLU(0.2, inplace=True), nn.Linear(6, 2)),
    "tanh in place in a view": lambda: scaled(lambda x: (x * 2).view(-1).tanh_()),
    "exp in place, overwritten": lambda: scaled(lambda x: (x * 2).exp_().mul(3).sqrt_()),
    "lstm cell": lambda: nn.LSTMCell(6, 3),
    "gru cell": lambda: nn.GRUCell(6, 3),
    "rnn cell": lambda: nn.RNNCell(6, 3, nonlinearity="relu"),
    "spectrum": lambda: scaled(lambda x: torch.fft.fft(x).abs()),
    "svdvals": lambda: scaled(torch.linalg.svdvals),
}
SHAPES = {"batch_norm of images": (4, 2, 3, 3), "instance_norm": (4, 2, 4, 4)}
SHAPES["max_pool"] = (2, 2, 5, 5)
QUICK = (
    *("layer_norm", "batch_norm", "batch_norm in evaluation", "softmax", "cross entropy", "mse"),
    *("huber", "soft margin", "adaptive max_pool", "prelu", "elu", "relu in place", "rrelu"),
    *("tanh in place in a view", "gru cell", "spectrum"),
)


def penalty(layer, x):
    """WGAN-GP's, whose slopes are of all of the layer's results, squared."""

    def value(*_):
        torch.manual_seed(3)
        inputs = x.clone().requires_grad_()
        found = layer(inputs)
        found = found[0] if isinstance(found, tuple) else found
        weights = torch.linspace(-1, 1, found.numel(), dtype=x.dtype).view_as(found)
        (slope,) = torch.autograd.grad((weights * found**2).sum(), inputs, create_graph=True)
        return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()

    return value


def programs(name, dtype):
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    return layer, penalty(layer, torch.randn(*SHAPES.get(name, (4, 6)), dtype=dtype))


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS]
)
def test_a_gradient_penalty_is_decided(name):
    layer, value = programs(name, D)
    report = clarke.check(value, tuple(layer.parameters()), seconds=20)
    assert report.verdict in (Verdict.SMOOTH, Verdict.BOULIGAND), report.text()
    if report.touched == 0:
        assert report.verdict is Verdict.SMOOTH


@pytest.mark.parametrize("name", ["layer_norm", "relu in place"])
def test_in_float32_and_in_an_audit(name):
    layer, value = programs(name, torch.float32)
    optimizer = torch.optim.SGD(layer.parameters(), 0.01)
    with clarke.audit() as audit:
        for _ in range(3):
            optimizer.zero_grad()
            value().backward()
            optimizer.step()
    assert {r.verdict for r in audit.reports} == {Verdict.SMOOTH}


KEPT = {
    "layer_norm": lambda z: F.layer_norm(torch.cat([z, z**2, 0 * z]), (3,))[:2],
    "sigmoid of a part, in place": lambda z: sum(
        c.sigmoid_() for c in torch.unsafe_chunk(torch.cat([z, 2 * z]) * 1, 2)
    ),
    "tanh of a view, in place": lambda z: (z * 1).view(1, 1).tanh_(),
    "batch_norm": lambda z: F.batch_norm(torch.stack([z, z**2, 0 * z]), None, None, training=True)[
        :2
    ],
    "cross entropy": lambda z: F.cross_entropy(
        torch.stack([z, z * z], 1), torch.tensor([0]), reduction="none"
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_kink_in_the_slope_is_seen_through_what_is_kept(name):
    w = torch.tensor([1.5], dtype=D, requires_grad=True)
    x = torch.tensor([0.7], dtype=D, requires_grad=True)

    def slope(w, x):
        (found,) = torch.autograd.grad(KEPT[name](w * x).sum(), x, create_graph=True)
        return found

    here = slope(w, x).item()

    def wrong(w, x):
        gap = slope(w, x) - here
        return (torch.relu(gap) - torch.relu(-gap)).sum()  # gap itself, but AD says 0

    report = clarke.check(wrong, (w, x))
    assert report.verdict is Verdict.NOT_CLARKE
    right = torch.autograd.grad(slope(w, x).sum(), (w, x))
    for found, wanted in zip(report.element, right, strict=True):
        torch.testing.assert_close(found, wanted)


TARGET = torch.ones(4, dtype=D)
AT_KINKS = {
    "max_pool": lambda z: F.max_pool1d(z[None], 2)[0],
    "max_pool3d": lambda z: F.max_pool3d(z.view(1, 1, 1, 2, 2), (1, 1, 2)).flatten(),
    "adaptive max_pool": lambda z: F.adaptive_max_pool2d(z.view(1, 2, 2), (2, 1)).flatten(),
    "hardtanh": lambda z: F.hardtanh(z, -2.0, 5.0),
    "hardswish": lambda z: F.hardswish(z * 1.5),
    "elu": lambda z: F.elu(z - 2),
    "elu of slope 2": lambda z: F.elu(z - 2, 2.0),
    "elu in place": lambda z: F.elu(z - 2, inplace=True),
    "celu": lambda z: F.celu(z - 2, 0.5),
    "selu": lambda z: F.selu(z - 2),
    "softshrink": lambda z: F.softshrink(z, 2.0),
    "hardshrink": lambda z: F.hardshrink(z, 2.0),
    "prelu": lambda z: F.prelu(z - 2, torch.tensor(0.3, dtype=D)),
    "relu in place": lambda z: F.relu_(z - 2),
    "smooth l1": lambda z: F.smooth_l1_loss(z, TARGET, reduction="none"),
    "smooth l1 of 0": lambda z: F.smooth_l1_loss(z, 2 * TARGET, beta=0.0)[None],
    "huber": lambda z: F.huber_loss(z, TARGET, reduction="none"),
    "mean huber": lambda z: F.huber_loss(z, TARGET)[None],
    "squared relu": lambda z: torch.relu(z - 2) ** 2,
    "median": lambda z: z.median(0).values[None],
}


@pytest.mark.parametrize("name", AT_KINKS)
def test_at_kinks_as_gradients_nearby_say(name):
    w = torch.tensor([2.0, 2.0, 1.0, -1.0], dtype=D, requires_grad=True)

    def value(w):
        x = torch.tensor([1.0, 1.0, 0.5, 2.0], dtype=D, requires_grad=True)
        found = AT_KINKS[name](w * x)
        weights = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=D)[: found.numel()]
        (slope,) = torch.autograd.grad((found * weights).sum(), x, create_graph=True)
        return (slope**2 * torch.arange(1.0, 5, dtype=D)).sum()

    here = value(w)
    (gradient,) = torch.autograd.grad(here, w)
    generator = torch.Generator().manual_seed(0)
    jumps, gaps = [], []
    for _ in range(40):
        beside = w.detach() + 1e-8 * torch.randn(4, dtype=D, generator=generator)
        there = value(beside.requires_grad_())
        jumps.append(float((there - here).detach().abs()))
        gaps.append(float((torch.autograd.grad(there, beside)[0] - gradient).abs().max()))
    large = 1 + here.item() + gradient.norm().item()
    report = clarke.check(value, (w,))
    if max(jumps) > 1e-4 * large:
        assert report.verdict is Verdict.NOT_LIPSCHITZ
    elif max(gaps) < 1e-4 * large:
        assert report.verdict is Verdict.SMOOTH
    else:
        assert min(gaps) < 1e-4 * large
        assert report.verdict is Verdict.BOULIGAND
