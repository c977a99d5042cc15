"""Quick counts of touched kinks against slow ones that are obviously right."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import clarke
from clarke.capture import OpRecord
from clarke.fast.rows import RowCodes, _by_entries, _ties, _whole_rows
from clarke.kinks.table_scattered import ByIndex, attained


def by_index(rng, places, width, rows, reduce, include):
    x = torch.from_numpy(rng.integers(-1, 2, (places, width)).astype(np.float32))
    src = torch.from_numpy(rng.integers(-2, 3, (rows, width)).astype(np.float32))
    if rng.random() < 0.2:
        src.view(-1)[: rng.integers(0, 3)] = float(rng.choice([np.nan, np.inf, -np.inf, -0.0]))
    target = torch.from_numpy(rng.integers(0, places, rows))
    codes = rng.integers(0, max(1, rows // 2), rows).astype(np.uint64)
    if rng.random() < 0.7:  # rows of one code are one function, so that their values are equal
        first = {int(c): i for i, c in reversed(list(enumerate(codes)))}
        src = src[[first[int(c)] for c in codes]]
    index = target[:, None].expand(rows, width)
    result = x.scatter_reduce(0, index, src, reduce, include_self=include)
    op = OpRecord(0, torch.ops.aten.amax.default, (), {}, (0,), True, {}, {}, None)
    return ByIndex(op, 0, x, index, src, result), codes


@pytest.mark.parametrize("reduce", ["amax", "amin"])
@pytest.mark.parametrize("include", [True, False])
def test_whole_rows_are_counted_as_entry_by_entry(reduce, include):
    rng = np.random.default_rng(5)
    decided = touched = 0
    for _ in range(400):
        found, codes = by_index(
            rng, *(int(n) for n in rng.integers(1, 5, 2)), int(rng.integers(1, 7)), reduce, include
        )
        known = RowCodes(codes if rng.random() < 0.8 else None, {}, {}, {})
        target = _whole_rows(found)
        quick = None if target is None else _ties(found, target, known)
        reached = attained(found)
        graph = SimpleNamespace(writes=False, rows={0: known}, trace=None)
        slow = None if reached is None else _by_entries(graph, 0, found, reached, 3)
        if quick is not None:
            decided += 1
            touched += quick.touched > 0
            assert (quick.elements, quick.touched, quick.choice) == (
                slow.elements,
                slow.touched,
                slow.choice,
            )
        elif target is not None and not include:
            assert slow is None
    assert decided > 20
    assert touched > 5


def test_classes_follow_the_index_and_the_codes():
    rng = np.random.default_rng(2)
    known = RowCodes(np.array([1, 1, 2], dtype=np.uint64), {}, {}, {})
    for _ in range(50):
        target = rng.integers(0, 3, 3)
        classes = known.classes_of(target, 3)
        target[:] = rng.integers(0, 3, 3)  # in place, as a program may write to its index
        fresh = RowCodes(known.codes, {}, {}, {}).classes_of(target, 3)
        again = known.classes_of(target, 3)
        assert np.array_equal(again.apart, fresh.apart)
        assert np.array_equal(again.several, fresh.several)
        assert classes is not again or np.array_equal(classes.target, target)


def steps(audited, exponent):
    """Random numbers and gradients of steps at kinks, some of which are judged dearly."""
    torch.manual_seed(1)
    x = torch.zeros(4, requires_grad=True)
    net = torch.nn.Linear(4, 4)
    seen = []

    def step(number):
        y = torch.relu(x) + torch.clamp(net(x), -0.5, 0.5)
        y = torch.nn.functional.dropout(y, 0.5) ** exponent
        z = torch.max(y, x * number) + torch.rand(4)
        z.sum().backward()
        seen.append((x.grad.clone(), torch.rand(3)))
        x.grad = None
        net.zero_grad()

    if not audited:
        for number in range(5):
            step(number % 2)
        return seen
    with clarke.audit(lambda report: None, seconds=20):
        for number in range(5):
            step(number % 2)
    return seen


@pytest.mark.parametrize("exponent", [2, 2.0])
def test_random_numbers_are_those_of_the_program_alone(exponent):
    for own, plain in zip(steps(True, exponent), steps(False, exponent), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, plain, strict=True))
