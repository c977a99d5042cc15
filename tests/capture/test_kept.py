"""What a recorder keeps of a ReLU, how values are let go and come back, and the weak table."""

import gc

import pytest
import torch
from torch import nn

from clarke.capture import Recorder, Signs, ZeroFinder, collect_trace, refilled, without_values
from clarke.capture.weak import TensorTable
from clarke.experiments.models import resnet18, vgg11, vgg11_bn
from clarke.kinks import OpKind, default_registry


def record(program, *inputs):
    registry = default_registry()
    with Recorder(registry.keeps) as recorder:
        out = program(*inputs)
        return collect_trace(recorder, out)


def relus(trace):
    return [op for op in trace.ops if op.short_name in ("relu", "relu_")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "every other"])
def test_zeros_are_found_in_any_layout(dtype, layout):
    values = torch.randint(-2, 3, (3, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    values = values.to(dtype)
    values[0, 0, 0, 0] = -0.0
    values[0, 0, 0, 1] = torch.nan
    if layout == "channels last":
        values = values.to(memory_format=torch.channels_last)
    elif layout == "transposed":
        values = values.transpose(1, 3)
    elif layout == "every other":
        values = values[:, ::2]
    expected = (values.contiguous().view(-1) == 0).nonzero().squeeze(1)
    assert torch.equal(ZeroFinder().find(values), expected)
    assert ZeroFinder().find(torch.ones(3, dtype=dtype)).numel() == 0
    assert ZeroFinder().find(torch.zeros(0, dtype=dtype)).numel() == 0


def test_zeros_beyond_the_first_chunk():
    values = torch.ones((1 << 20) + 5)
    values[1 << 20] = 0
    values[7] = 0
    assert ZeroFinder().find(values).tolist() == [7, 1 << 20]


def test_a_stand_in_has_the_signs_of_what_was_read():
    x = torch.tensor([[-3.0, 0.0, 2.0], [torch.nan, -0.0, -torch.inf]])
    signs = Signs(torch.relu(x), ZeroFinder().find(x))
    found = signs.stand_in()
    assert found.shape == x.shape
    assert torch.equal(found.nan_to_num(9).sign(), x.nan_to_num(9).sign())
    assert found[0, 2] == 2


@pytest.mark.parametrize("inplace", [False, True])
def test_signs_survive_what_overwrites_the_output(inplace):
    x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)

    def program(x):
        y = nn.functional.relu(x * 1, inplace=inplace)
        z = y * 3
        y.add_(5)
        return (y + z).sum()

    (op,) = relus(record(program, x))
    assert op.signs.output.tolist() == [0, 0, 2]
    assert op.kept[0].tolist() == [-1, 0, 2]


@pytest.mark.parametrize("make", [vgg11, vgg11_bn, resnet18])
def test_values_let_go_come_back(make):
    torch.manual_seed(0)
    net = make(**({"width": 4} if make is resnet18 else {"shrink": 32}))
    images = torch.randint(0, 3, (2, 3, 32, 32)).float()
    trace = record(lambda: nn.functional.cross_entropy(net(images), torch.tensor([1, 2])))
    means = [b.clone() for b in net.buffers()]
    registry = default_registry()
    empty = without_values(trace, lambda func: registry.known(func).kind is not OpKind.RANDOM)
    assert not any(op.kept or op.kept_outputs or op.signs for op in empty.ops)
    again = refilled(empty, registry.keeps)
    assert refilled(trace, registry.keeps) is trace
    for old, new in zip(trace.ops, again.ops, strict=True):
        for name in ("kept", "kept_outputs", "kept_lists"):
            before, after = getattr(old, name), getattr(new, name)
            assert set(before) == set(after), (old.name, name)
            assert all(torch.equal(before[k], after[k]) for k in before), (old.name, name)
    assert all(torch.equal(a, b) for a, b in zip(means, net.buffers(), strict=True))


def test_random_values_are_not_let_go():
    torch.manual_seed(0)
    x = torch.ones(50, requires_grad=True)
    trace = record(lambda: nn.functional.dropout(x, 0.5).relu().sum())
    registry = default_registry()
    empty = without_values(trace, lambda func: registry.known(func).kind is not OpKind.RANDOM)
    again = refilled(empty, registry.keeps)
    assert torch.equal(relus(trace)[0].kept[0], relus(again)[0].kept[0])


def test_a_table_forgets_with_its_tensors():
    table = TensorTable()
    x, y = torch.zeros(2), torch.zeros(2)
    table.set(x, "x")
    table.set(y, "y")
    assert (table.get(x), table.get(y), table.get(torch.zeros(2))) == ("x", "y", None)
    table.set(x, "new")
    assert table.get(x) == "new"
    table.drop(y)
    table.drop(y)
    assert table.get(y) is None
    del x
    gc.collect()
    assert len(table) == 0


def test_a_tensor_that_only_torch_still_holds_is_known_when_it_comes_back():
    table = TensorTable()
    leaf = torch.zeros(2, requires_grad=True)
    product = leaf * 1
    table.set(leaf, "leaf")
    node = product.grad_fn.next_functions[0][0]
    del leaf
    gc.collect()
    assert table.get(node.variable) == "leaf"
