"""Torch's own list of operations, each between two halves of the identity.

``relu(v - c) - relu(c - v)`` is ``v - c``, and of it autograd says 0 where ``v`` is ``c``. So no
verdict that calls that right is true, whatever operation computed ``v``: one whose tangents are
lost, whose kinks are taken for constant or whose memory is misread shows here.
"""

import os
import random

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map

import clarke
from clarke import Verdict

MANY = int(os.environ.get("CLARKE_FUZZ", "0"))
SIZES = (1e-3, 1e6)  # of gradients: neither nothing nor a pole
ENTRIES = 60

pytestmark = pytest.mark.filterwarnings("ignore")


def tensors(tree):
    return [t for t in tree_flatten(tree)[0] if isinstance(t, torch.Tensor)]


def scalar_of(op, sample, leaves):
    """The operation as a function of its real inputs, its results weighed and added up."""
    numbers = {id(leaf): i for i, leaf in enumerate(leaves)}

    def function(*values):
        def given(t):
            known = isinstance(t, torch.Tensor) and id(t) in numbers
            return values[numbers[id(t)]] * 1 if known else t

        first, args, kwargs = tree_map(given, (sample.input, sample.args, sample.kwargs))
        torch.manual_seed(3)
        found = tensors(op.op(first, *args, **kwargs))
        generator = torch.Generator().manual_seed(1)
        total = 0
        for part in found:
            if part.is_floating_point() or part.is_complex():
                real = torch.view_as_real(part) if part.is_complex() else part
                weights = torch.rand(real.shape, generator=generator, dtype=torch.float64) + 0.5
                total = total + (weights * real).sum()
        return total

    return function


def programs(seed):
    """Operations of torch's list with an input, in random order."""
    listed = pytest.importorskip("torch.testing._internal.common_methods_invocations").op_db
    draw = random.Random(seed)  # noqa: S311 - no secret
    for op in draw.sample(listed, len(listed)):
        if torch.float64 not in op.dtypes or not op.supports_autograd:
            continue
        try:
            samples = list(op.sample_inputs("cpu", torch.float64, requires_grad=False))
        except Exception:  # noqa: BLE001, S112 - what this machine lacks
            continue
        draw.shuffle(samples)
        for sample in samples[:2]:
            given = tensors((sample.input, sample.args, sample.kwargs))
            leaves = [t for t in given if t.is_floating_point()]
            many = any(not 0 < t.numel() <= ENTRIES for t in leaves)
            if leaves and not many and len({id(t) for t in leaves}) == len(leaves):
                yield op, scalar_of(op, sample, leaves), leaves


def value_at(function, leaves):
    """The value, if the function moves there and returns the same twice; None for others."""
    try:
        xs = [x.detach().clone().requires_grad_() for x in leaves]
        value = function(*xs)
        slopes = torch.autograd.grad(value, xs, allow_unused=True, materialize_grads=True)
        again = float(function(*xs))
    except Exception:  # noqa: BLE001 - inputs on which the operation itself raises
        return None
    size = max(float(s.abs().max()) for s in slopes)
    return again if SIZES[0] < size < SIZES[1] and again == float(value) else None


@pytest.mark.fuzz
@pytest.mark.skipif(not MANY, reason="set CLARKE_FUZZ to a number of programs")
def test_no_operation_makes_the_identity_right():
    tried, right = 0, []
    for op, function, leaves in programs(MANY):
        value = value_at(function, leaves)
        if value is None:
            continue
        tried += 1

        def identity(*xs, function=function, value=value):
            v = function(*xs)
            return torch.relu(v - value) - torch.relu(value - v)

        xs = tuple(x.detach().clone().requires_grad_() for x in leaves)
        found = [clarke.check(identity, xs, seconds=6).verdict]
        for quick in (True, False):
            with clarke.audit(settings=clarke.Settings(quick=quick), seconds=4) as audit:
                identity(*xs).backward()
            found.append(audit.steps[-1].verdict)
        named = (op.name, op.variant_test_name, *found)
        right += [named for v in found if v.correct]
        if tried == MANY:
            break
    assert tried
    assert not right


def test_the_identity_of_a_product_is_wrong():
    """The reference itself, on one operation of which all is known."""
    x = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    found = clarke.check(lambda x: torch.relu(x.prod() - 6) - torch.relu(6 - x.prod()), x)
    assert found.verdict is Verdict.NOT_CLARKE
    assert found.element[0].tolist() == [3, 2]
