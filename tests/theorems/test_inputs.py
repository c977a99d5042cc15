"""What a theorem claims for all inputs must not rest on the values of the example."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import clarke
from clarke import Verdict, explain

DOUBLE = torch.float64
SIGNS = torch.tensor([[1.0], [-1.0]], dtype=DOUBLE)
ONES = torch.ones(2, 1, dtype=DOUBLE)


class Net(nn.Module):
    def __init__(self, function, biases=1):
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.zeros(1, 1, dtype=DOUBLE))
        self.b = nn.Parameter(torch.zeros(biases, dtype=DOUBLE))

    def forward(self, *inputs):
        return self.function(self, *inputs)


def smooth(net, x):
    return torch.tanh(x @ net.w)


TRUE, FALSE = torch.tensor([[True], [True]]), torch.tensor([[False], [False]])
NUMBER = torch.tensor(1.0, dtype=DOUBLE)
# The model, its biases, an example that hides the fault, an input that shows it.
HIDDEN = {
    "a factor": (lambda s, x: F.relu(x * s.b), 1, (ONES,), (SIGNS,)),
    "a factor of zeros": (lambda s, x: F.relu(x * s.b), 1, (0 * ONES,), (SIGNS,)),
    "a mask of numbers": (
        lambda s, x, m: F.relu(smooth(s, x) + m * s.b), 1, (SIGNS, ONES), (SIGNS, 0 * ONES)
    ),
    "a mask of integers": (
        lambda s, x, m: F.relu(smooth(s, x) + m * s.b),
        1, (SIGNS, ONES.long()), (SIGNS, 0 * ONES.long()),
    ),
    "a choice": (
        lambda s, x, m: F.relu(smooth(s, x) + torch.where(m, s.b, 0.0)),
        1, (SIGNS, TRUE), (SIGNS, FALSE),
    ),
    "a filled mask": (
        lambda s, x, m: F.relu(smooth(s, x) + s.b.masked_fill(m, 0.0)),
        1, (SIGNS, FALSE), (SIGNS, TRUE),
    ),
    "indices": (
        lambda s, x, i: F.hardtanh(x[:, 0] + s.b.index_select(0, i)),
        2, (SIGNS, torch.tensor([0, 1])), (SIGNS, torch.tensor([0, 0])),
    ),
    "a number": (
        lambda s, x, t: F.relu(smooth(s, x) + t * s.b), 1, (SIGNS, NUMBER), (SIGNS, 0 * NUMBER)
    ),
    "a branch": (
        lambda s, x: F.relu(x @ s.w + s.b) if x.sum() > 0 else F.relu(x @ s.w) - F.relu(-(x @ s.w)),
        1, (ONES,), (-ONES,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_is_claimed_that_another_input_refutes(name):
    function, biases, example, other = HIDDEN[name]
    net = Net(function, biases)
    assert not explain(net, example).always_correct
    weights = SIGNS[:, 0] if biases == 2 else SIGNS
    weights = torch.ones_like(weights) if name in ("a branch", "indices") else weights
    report = clarke.check(lambda *_: (net(*other) * weights).sum(), (net.w, net.b))
    assert report.verdict is not Verdict.BOULIGAND
    assert not report.correct


class Changed(nn.Module):
    """A mask that forward itself switches off."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1, dtype=DOUBLE))
        self.b = nn.Parameter(torch.zeros(1, dtype=DOUBLE))
        self.register_buffer("mask", torch.ones(1, dtype=DOUBLE))

    def forward(self, x):
        self.mask.zero_()
        return F.relu(torch.tanh(x @ self.w) + self.mask * self.b)


def test_buffers_count_as_the_model_read_them():
    net = Changed()
    assert not explain(net, SIGNS).always_correct
    assert net.mask.item() == 1


class Centred(nn.Module):
    """Subtracts a mean that it has stored out of autograd's sight."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, 1, dtype=DOUBLE))
        self.b = nn.Parameter(torch.zeros(1, dtype=DOUBLE))
        self.register_buffer("mean", torch.zeros(1, dtype=DOUBLE))

    def forward(self, x):
        y = x @ self.w
        with torch.no_grad():
            self.mean.copy_(y.mean(0))
            self.mean.mul_(1.0)
        return F.relu(y - self.mean.clone() + self.b)


def test_what_is_stored_in_a_buffer_stays_detached():
    assert not explain(Centred(), torch.tensor([[1.0], [3.0]], dtype=DOUBLE)).always_correct


@pytest.mark.parametrize(
    "condition",
    [
        lambda w: torch.equal(w, torch.zeros_like(w)),
        lambda w: w.nonzero().shape[0] == 0,
        lambda w: w.tolist() == [[0.0]],
        lambda w: w.detach().numpy()[0] == 0,
    ],
)
def test_branches_on_parameters_are_seen(condition):
    net = Net(lambda s, x: F.relu(x @ s.w + s.b) if condition(s.w) else F.relu(x @ s.w))
    assert not explain(net, SIGNS).always_correct


def test_an_addend_times_nothing_is_no_lower_bound():
    w = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    found = explain(lambda w: torch.add(w.relu(), 1.0, alpha=0).sqrt().sum(), (w,))
    assert not found.always_correct


@dataclass
class Pair:
    good: torch.Tensor
    bad: torch.Tensor


class Opaque:
    def __init__(self, inside):
        self.inside = inside


def test_all_outputs_count():
    w = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    assert not explain(lambda w: Pair(w * 1, F.relu(w) - F.relu(-w)), (w,)).always_correct
    with pytest.raises(clarke.InputError, match="Opaque"):
        explain(lambda w: (w * 1, Opaque(F.relu(w) - F.relu(-w))), (w,))


def test_hooks_on_parameters_and_empty_examples_are_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(clarke.InputError, match="no elements"):
        explain(net, torch.zeros(0, 2))
    net[0].weight.register_hook(lambda g: 2 * g)
    with pytest.raises(clarke.InputError, match="has a hook"):
        explain(net, torch.zeros(1, 2))


def test_models_that_write_to_their_inputs_or_take_them_to_numpy():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            x -= 1
            return F.relu(self.layer(x + torch.from_numpy(x.numpy()).mean()))

    example = torch.ones(3, 2)
    assert not explain(Writes(), example).always_correct  # numbers went into Python
    assert example.tolist() == [[1.0, 1.0]] * 3


class Frozen(nn.Module):
    """Features of the input that are taken without a gradient."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.body, self.head = nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, x):
        if self.how == "detach":
            return F.relu(self.head((x * 2).detach()))
        with torch.no_grad():
            x = (x - x.mean()) / x.std()
        return F.relu(self.body(x))


@pytest.mark.parametrize("how", ["detach", "no_grad"])
def test_what_is_cut_off_from_inputs_alone_is_a_constant(how):
    size = 3 if how == "detach" else 2
    assert explain(Frozen(how), torch.randn(4, size)).always_correct


def test_what_is_taken_from_the_example_is_said():
    net = Net(lambda s, x, k: F.relu(smooth(s, x) + s.b) * k)
    assert explain(net, (SIGNS, 2.0)).assumptions == (
        "arguments that are no tensors stay as they are",
    )
    masked = Net(lambda s, x, m: F.relu(smooth(s, x) + s.b) if m.all() else s.b * 1)
    assert explain(masked, (SIGNS, TRUE)).assumptions == (
        "no branch in Python depends on an integer or boolean input",
    )


class Batch(NamedTuple):
    x: torch.Tensor


def test_containers_sparse_constants_and_writes_without_gradients():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    named = Net(lambda s, batch: F.relu(batch.x @ s.w + s.b))
    assert explain(named, (Batch(SIGNS),)).always_correct
    graph = torch.eye(3).to_sparse()

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return F.relu(torch.sparse.mm(graph, self.layer(x)))

    assert explain(Graph(), torch.randn(3, 2)) is not None

    def doubled(x):
        with torch.no_grad():
            x.mul_(2)
        return net(x)

    assert explain(doubled, (torch.randn(3, 2),)) is not None
