"""What ran, where it stands: any eager program is recorded as it is."""

import functools
import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

import clarke
from clarke import Verdict
from reference.leaves import leaf


def line_of(function, text):
    """The line number in this file at which `text` stands in `function`."""
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 2, bias=False)
        self.act = nn.ReLU()

    def forward(self, x):
        return F.relu(self.act(self.lin(x)))  # functional and module


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


def test_module_paths_and_lines():
    net = Net().double()
    report = clarke.check(lambda: net(torch.zeros(1, 2, dtype=torch.float64)).sum())
    expected = [
        (f"{block}{inner}", line_of(Block.forward, "functional and module"))
        for block in ("first", "blocks.0", "blocks.1")
        for inner in (".act", "")
    ]
    assert [(k.module, k.line) for k in report.kinks] == expected
    assert {k.file for k in report.kinks} == {__file__}
    assert {k.touched for k in report.kinks} == {2}


def test_a_plain_function_names_its_line():
    def program(x):
        y = x * 2
        return torch.relu(y).sum()  # here

    report = clarke.check(program, (leaf(0.0),))
    (kink,) = report.kinks
    assert (kink.module, kink.line) == ("", line_of(program, "# here"))
    assert f"test_capture.py:{kink.line}" in str(report)


def test_a_module_called_several_times():
    block = nn.ReLU()

    def program(x):
        return (block(x) + block(x - 1) + block(x)).sum()

    report = clarke.check(program, (leaf(0.0, 1.0),))
    assert report.touched == 3
    assert report.verdict is Verdict.BOULIGAND


def test_shared_weights():
    lin = nn.Linear(2, 2).double()

    def program():
        x = torch.zeros(1, 2, dtype=torch.float64)
        for _ in range(3):
            x = torch.relu(lin(x))
        return x.sum()

    with torch.no_grad():
        lin.bias.zero_()
    report = clarke.check(program)
    assert report.touched == 6
    assert report.correct


@pytest.mark.parametrize("inplace", [True, False])
def test_in_place_operations(inplace):
    def program(x):
        y = x * 1
        y.add_(1).mul_(2)
        y = F.relu(y, inplace=inplace)
        z = y - 2
        z[0] = z[1] * 3
        return F.hardtanh(z, -6, 6, inplace=inplace).sum()

    report = clarke.check(program, (leaf(1.0, -1.0),))
    assert [k.touched for k in report.kinks] == [1, 1]
    assert [g.tolist() for g in report.gradient] == [[0, 0]]
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_views_of_one_memory():
    def program(x):
        y = x * 1
        left, right = y[:2], y[2:]
        left.clamp_(min=0)
        right.clamp_(max=0)
        return (y * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=y.dtype)).sum()

    report = clarke.check(program, (leaf(0.0, 1.0, 0.0, 1.0),))
    assert report.correct
    assert report.certificate.verify()
    assert [k.operation for k in report.kinks] == ["clamp_", "clamp_"]


def test_transposed_and_expanded_inputs():
    def program(x):
        table = x.reshape(2, 2).t().expand(3, 2, 2)
        return table.amax((0, 2)).sum()

    report = clarke.check(program, (leaf(1.0, 1.0, 1.0, 0.0),))
    assert report.correct
    assert report.certificate.verify()


def test_frozen_parameters_are_constants():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    net[0].requires_grad_(False)
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
    report = clarke.check(lambda: net(torch.ones(1, 2, dtype=torch.float64)).sum())
    assert len(report.gradient) == 2
    assert report.verdict is Verdict.SMOOTH
    assert report.kinks == ()


def test_no_grad_blocks_are_constants():
    def program(x):
        with torch.no_grad():
            scale = torch.relu(x) + 1
        return (torch.relu(x - 1) * scale).sum()

    report = clarke.check(program, (leaf(1.0),))
    assert report.correct is not False
    assert report.gradient[0].item() == 0
    (kink,) = report.kinks
    assert (kink.operation, kink.touched) == ("relu", 1)


def test_detached_copies_do_not_hide_kinks():
    def program(x):
        return (torch.relu(x) - torch.relu(-x.detach())).sum()

    report = clarke.check(program, (leaf(0.0),))
    assert report.verdict is not Verdict.NOT_CLARKE


def test_autocast():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].bias.zero_()

    def program():
        with torch.autocast("cpu", torch.bfloat16):
            return net(torch.zeros(4, 2)).sum()

    report = clarke.check(program)
    assert report.verdict is Verdict.BOULIGAND
    assert report.touched == 12
    assert {k.module for k in report.kinks} == {"1"}


def test_dictionaries_and_tuples_on_the_way():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(2, 2).double()

        def forward(self, *, batch):
            h = torch.relu(self.lin(batch["x"]))
            return {"loss": h.sum(), "extra": (h, h.detach())}

    model = Model()
    with torch.no_grad():
        model.lin.bias.zero_()
    batch = {"x": torch.zeros(1, 2, dtype=torch.float64)}
    report = clarke.check(lambda: model(batch=batch)["loss"])
    assert report.touched == 2
    assert report.correct


def test_several_losses_of_one_forward_pass():
    def both(x):
        h = torch.relu(x)
        return {"first": h.sum(), "second": torch.relu(x.sum() - h.sum() * 0 - 1).exp()}

    x = leaf(0.0, 1.0)
    first = clarke.check(lambda x: both(x)["first"], (x,))
    second = clarke.check(lambda x: both(x)["second"], (x,))
    assert (first.touched, second.touched) == (1, 2)
    assert first.correct
    assert second.correct


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.relu(x) * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 3  # wrong


def test_a_custom_function_is_recognised():
    def program(x):
        y = torch.relu(x)
        return Doubled.apply(y).sum()  # declared

    report = clarke.check(program, (leaf(0.0, 1.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    (culprit,) = report.culprits
    assert culprit.operation == "Doubled"
    assert culprit.location.line == line_of(program, "# declared")
    assert "Doubled" in report.reason
    assert [g.tolist() for g in report.gradient] == [[0, 3]]


class SetUpApart(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return torch.relu(x) * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


def noted(forward):
    @functools.wraps(forward)
    def inner(*args):
        return forward(*args)

    return inner


class Decorated(Doubled):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    @noted
    def forward(ctx, x):
        return torch.relu(x) * 2


@pytest.mark.parametrize("function", [SetUpApart, Decorated, type("Inherited", (Doubled,), {})])
def test_a_custom_function_stands_where_it_is_applied(function):
    def program(x):
        return function.apply(x).sum()  # declared

    (culprit,) = clarke.check(program, (leaf(1.0),)).culprits
    assert culprit.operation == function.__name__
    assert culprit.location.line == line_of(program, "# declared")


def test_a_custom_function_that_does_not_reach_the_result():
    def program(x):
        Doubled.apply(x)
        return torch.relu(x).sum()

    assert clarke.check(program, (leaf(0.0),)).verdict is Verdict.BOULIGAND


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant):
    block = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        block[0].bias.zero_()
    x = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)

    def program():
        return checkpoint(block, x, use_reentrant=reentrant).sum()

    if reentrant:  # torch.autograd.grad itself refuses these
        with pytest.raises(clarke.InputError, match="Pass use_reentrant=False"):
            clarke.check(program)
        assert block[0].weight.grad is None
        return
    report = clarke.check(program)
    assert report.touched == 6
    assert report.verdict is Verdict.BOULIGAND
    assert report.kinks[0].module.endswith("1")


@pytest.mark.parametrize("shape", [nn.Linear(3, 4), nn.Conv1d(3, 4, 1)])
def test_weight_normalisation(shape):
    layer = nn.utils.parametrizations.weight_norm(shape.double())
    with torch.no_grad():
        layer.bias.zero_()
    x = torch.zeros(2, 3, 1) if isinstance(shape, nn.Conv1d) else torch.zeros(2, 3)
    report = clarke.check(lambda: torch.relu(layer(x.double())).sum())
    assert report.touched == 8
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_recurrent_and_attention_layers_need_nothing_special():
    rnn = nn.RNN(3, 4, nonlinearity="relu").double()
    attention = nn.MultiheadAttention(4, 2).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)

    def program():
        h, _ = rnn(x)
        return attention(h, h, h)[0].square().mean()

    report = clarke.check(program)
    assert report.verdict is Verdict.SMOOTH
    assert report.certificate.verify()


def test_functional_transforms():
    assert clarke.check(lambda x: torch.vmap(torch.relu)(x).sum(), (leaf(0.0, 1.0),)).correct


def test_dropout_is_repeated_with_the_same_mask():
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 1)).double()
    with torch.no_grad():
        net[0].bias.zero_()
    report = clarke.check(lambda: net(torch.zeros(3, 4, dtype=torch.float64)).sum())
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_a_branch_at_a_tie_is_named():
    """The function is x, also at zero, where autograd returns 2."""

    def program(x):
        y, z = x * 1, x * 2
        return z if x == 0 else y  # branch

    report = clarke.check(program, (torch.tensor(0.0, dtype=torch.float64, requires_grad=True),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert float(report.element[0]) == 1
    assert f"test_capture.py:{line_of(program, '# branch')}" in str(report)


def test_a_branch_before_the_first_operation():
    def program(x):
        if x > 0:
            return x * 2
        return x

    report = clarke.check(program, (torch.tensor(0.0, dtype=torch.float64, requires_grad=True),))
    assert report.verdict is Verdict.BOULIGAND
    assert report.kinks[0].relevant == 1


@pytest.mark.parametrize("slope", [2, -3])
def test_a_branch_on_a_number_is_found_by_running(slope):
    """Python compares, so nothing is recorded; the two sides of the point disagree."""

    def program(x):
        return x * slope if x.item() > 0 else x * 1

    report = clarke.check(program, (torch.tensor(0.0, dtype=torch.float64, requires_grad=True),))
    assert report.verdict is Verdict.UNDECIDED
    assert "running the program does not confirm it" in report.reason


def test_buffers_filled_in_place_are_constants():
    def program(x):
        mask = torch.zeros_like(x)
        mask[0] = 1
        mask[1:].add_(2)
        return torch.relu(mask * x).sum()

    report = clarke.check(program, (leaf(0.0, 1.0),))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_a_branch_away_from_a_tie():
    def program(x):
        return x * 2 if x > 0 else x

    report = clarke.check(program, (torch.tensor(1.0, dtype=torch.float64, requires_grad=True),))
    assert report.verdict is Verdict.SMOOTH


def test_partial_functions_and_keyword_arguments():
    program = functools.partial(torch.nn.functional.l1_loss, target=torch.zeros(2).double())
    report = clarke.check(program, (leaf(0.0, 1.0),))
    assert report.correct
    assert report.touched == 1


def test_changes_behind_autograds_back_are_refused():
    def program(x):
        y = x * 1
        y.data.add_(1)
        return torch.relu(y).sum()

    report = clarke.check(program, (leaf(0.0),))
    assert report.verdict is Verdict.UNDECIDED
    assert "behind autograd's back" in report.reason
