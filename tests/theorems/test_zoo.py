"""Plain networks of many kinds: for each the right theorem, or the right obstacle."""

import pytest
import torch
from torch import nn

from clarke.check import check
from clarke.experiments.models import resnet18, vgg11, vgg11_bn
from clarke.explain import explain
from clarke.theorems import Bias, Condition, Strength, Theorem


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, width, norm, *, bias):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=bias), norm(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=bias), norm(width)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + x)


def small_resnet(norm, *, bias):
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), norm(4), nn.ReLU(inplace=True))
    blocks = [Block(4, norm, bias=bias) for _ in range(2)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


class SqueezeExcite(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, x):
        gate = torch.relu(self.down(x.mean((2, 3), keepdim=True)))
        return x * nn.functional.hardsigmoid(self.up(gate))


class Twin(nn.Module):
    """An activation with two kinks, written with two ReLUs that agree on their side."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "relu6":
            return torch.relu(x) - torch.relu(x - 6)
        if self.kind == "hardtanh":
            return torch.relu(x + 1) - torch.relu(x - 1) - 1
        gate = (torch.relu(x + 3) - torch.relu(x - 3)) / 6
        return gate if self.kind == "hardsigmoid" else x * gate


def mobilenet(activation):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), activation(),
        nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


class ConvNeXtBlock(nn.Module):
    def __init__(self, width, act):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm, self.act = nn.LayerNorm(width), act
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-2))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(self.act(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class Mixer(nn.Module):
    def __init__(self, tokens, width, act):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 6), act, nn.Linear(6, tokens))
        self.over_channels = nn.Sequential(nn.Linear(width, 6), act, nn.Linear(6, width))

    def forward(self, x):
        x = x + self.over_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norm2(x))


IMAGE = (2, 3, 8, 8)
TRUE = Strength.BOULIGAND
CASES = {
    "mlp, batch 1": (mlp, (1, 6), Theorem.ONE),
    "mlp": (mlp, (4, 6), Theorem.FOUR),
    "lenet": (lenet, (2, 1, 16, 16), Theorem.EIGHT),
    "vgg11": (lambda: vgg11(shrink=32), (2, 3, 32, 32), Theorem.EIGHT),
    "vgg11-bn": (lambda: vgg11_bn(shrink=32), (2, 3, 32, 32), Theorem.EIGHT),
    "resnet18": (lambda: resnet18(width=4), (2, 3, 16, 16), Theorem.EIGHT),
    "resnet, BN": (lambda: small_resnet(nn.BatchNorm2d, bias=False), IMAGE, Theorem.SIX),
    "resnet, biases": (lambda: small_resnet(nn.Identity, bias=True), IMAGE, Theorem.SIX),
    "resnet, neither": (lambda: small_resnet(nn.Identity, bias=False), IMAGE, Theorem.EIGHT),
    "mobilenet, hardswish": (lambda: mobilenet(nn.Hardswish), IMAGE, Theorem.EIGHT),
    "mobilenet, relu6": (lambda: mobilenet(nn.ReLU6), IMAGE, Theorem.EIGHT),
    "mobilenet, relu6 as relus": (
        lambda: mobilenet(lambda: Twin("relu6")), IMAGE, Theorem.BIAS_SHIFT,
    ),
    "mobilenet, hardswish as relus": (
        lambda: mobilenet(lambda: Twin("hardswish")), IMAGE, Theorem.BIAS_SHIFT,
    ),
    "squeeze-excite": (lambda: SqueezeExcite(4), (2, 4, 5, 5), Theorem.EIGHT),
    "convnext": (lambda: ConvNeXtBlock(4, nn.GELU()), (2, 4, 6, 6), Theorem.ANALYTIC),
    "convnext, relu": (lambda: ConvNeXtBlock(4, nn.ReLU()), (2, 4, 6, 6), Theorem.SIX),
    "mixer": (lambda: Mixer(5, 4, nn.GELU()), (2, 5, 4), Theorem.ANALYTIC),
    "mixer, relu": (lambda: Mixer(5, 4, nn.ReLU()), (2, 5, 4), Theorem.SIX),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), (2, 3, 8), Theorem.SIX,
    ),
    "relu rnn": (lambda: nn.RNN(3, 4, nonlinearity="relu", batch_first=True), (2, 3, 3), None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_right_theorem(name):
    make, shape, theorem = CASES[name]
    found = explain(make(), torch.randn(shape))
    assert found.theorem is theorem
    if theorem is Theorem.ANALYTIC:
        assert found.strength is Strength.GRADIENT
    elif theorem is not None:
        assert found.strength is TRUE
    assert found.always_correct == (theorem is not None and theorem.unconditional)
    assert all(len(line) <= 80 for line in f"{found}\n{found.details()}".splitlines())
    assert bool(found.in_the_way) == (not found.always_correct)


def blames(found, condition):
    hypothesis = found.hypothesis(condition)
    assert hypothesis.holds == (not hypothesis.blames)
    return [b.location.module for b in hypothesis.blames]


def test_maxpools_are_what_stands_in_the_way_of_lenet():
    found = explain(lenet(), torch.randn(2, 1, 16, 16))
    assert blames(found, Condition.POOLS) == ["2", "5"]
    assert blames(found, Condition.BIASES) == blames(found, Condition.LAMBDA) == []
    assert "Algorithm 2" in found.conclusion


def test_a_missing_bias_is_named_with_the_layer_that_could_have_it():
    found = explain(small_resnet(nn.Identity, bias=False), torch.randn(IMAGE))
    bad = found.hypothesis(Condition.BIASES).blames
    assert len(bad) == len(found.layers) == 5
    assert [b.fix for b in bad][:2] == [
        "add a bias to `0.0`, or after it",
        "add a bias to `1.conv1`, or after it",
    ]
    assert {layer.bias for layer in found.layers} == {Bias.MISSING}
    assert "Algorithm 1" in found.conclusion


def test_the_kinks_of_hardswish_have_no_common_lambda_and_the_rewrite_has():
    bad = explain(mobilenet(nn.Hardswish), torch.randn(IMAGE)).hypothesis(Condition.LAMBDA).blames
    assert [b.location.module for b in bad] == ["2", "5"]
    assert "relu(x + 3) - relu(x - 3)" in bad[0].fix


@pytest.mark.parametrize(
    ("kind", "original"),
    [
        ("relu6", nn.functional.relu6),
        ("hardtanh", nn.functional.hardtanh),
        ("hardsigmoid", nn.functional.hardsigmoid),
        ("hardswish", nn.functional.hardswish),
    ],
)
def test_the_rewrites_that_explain_advises_are_the_same_functions(kind, original):
    x = torch.linspace(-8, 8, 129, dtype=torch.float64)
    # Some float64 kernels of torch hold 1/6 rounded to float32.
    assert torch.allclose(Twin(kind)(x), original(x), rtol=1e-6, atol=1e-7)


def test_the_recurrent_bias_is_used_elsewhere():
    found = explain(nn.RNN(3, 4, nonlinearity="relu", batch_first=True), torch.randn(2, 3, 3))
    assert {layer.bias for layer in found.layers} == {Bias.ELSEWHERE}
    assert not found.hypothesis(Condition.OWN).holds


@pytest.mark.parametrize(
    ("act", "theorem", "strength"),
    [
        (nn.LeakyReLU(), Theorem.FOUR, Strength.BOULIGAND),
        (nn.PReLU(), Theorem.FOUR, Strength.BOULIGAND),
        (nn.ELU(), Theorem.ANALYTIC, Strength.GRADIENT),  # pieces meet smoothly
        (nn.SELU(), Theorem.FOUR, Strength.BOULIGAND),
        (nn.Softshrink(), None, None),
        (nn.Hardshrink(), None, None),
        (nn.Softplus(), None, None),  # steps at its threshold
    ],
)
def test_activations(act, theorem, strength):
    found = explain(nn.Sequential(nn.Linear(3, 4), act), torch.randn(2, 3))
    if isinstance(act, nn.Softshrink):
        # Slopes 1, 0, 1: torch takes 0 at both bounds, the upper piece at one, the lower at other.
        assert found.theorem is Theorem.FIVE
        assert not found.hypothesis(Condition.LAMBDA).holds
        return
    assert (found.theorem, found.strength) == (theorem, strength)


def test_absolute_values_mix_both_sides_evenly():
    found = explain(lambda x, t: (x - t).abs().sum(), (torch.zeros(3, requires_grad=True), 1.0))
    assert found.theorem is Theorem.ONE
    assert found.strength is Strength.CLARKE
    assert found.layers[0].upper == 0.5


def test_training_and_evaluation_mode_of_normalisation_agree():
    net = small_resnet(nn.BatchNorm2d, bias=True)
    assert explain(net, torch.randn(IMAGE)).theorem is Theorem.SIX
    assert explain(net.eval(), torch.randn(IMAGE)).theorem is Theorem.SIX


def test_the_model_is_left_as_it_was():
    net = small_resnet(nn.BatchNorm2d, bias=True)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    explain(net, torch.randn(IMAGE, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", ["mlp, batch 1", "mlp", "resnet, BN", "mixer, relu"])
def test_claims_agree_with_check_where_every_parameter_is_zero(name):
    make, shape, _ = CASES[name]
    net = make().double()
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.zero_()
    x = torch.zeros(shape, dtype=torch.float64)
    assert explain(net, x).always_correct

    def loss():
        out = net(x)
        return (out * torch.arange(1.0, 1.0 + out.numel()).view_as(out)).sum()

    report = check(loss)
    assert report.correct is not False


def test_plain_data():
    found = explain(lenet(), torch.randn(2, 1, 16, 16)).to_dict()
    assert found["theorem"] == "EIGHT"
    assert not found["always_correct"]
    assert [h["condition"] for h in found["hypotheses"]] == [c.name for c in (
        Condition.ANALYTIC, Condition.FIXED, Condition.BIASES, Condition.SINGLE,
        Condition.DISTINCT, Condition.LAMBDA, Condition.POOLS, Condition.OWN, Condition.FULL,
    )]  # fmt: skip
    assert found["layers"][0]["leaf"] == "0.bias"
