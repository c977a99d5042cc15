"""Shrinking, the corpus folder, and the solver, each alone."""

import random

import pytest
import torch

import clarke
from clarke.hunt.corpus import Corpus
from clarke.hunt.shrink import complexity, rows_dropped, shrunk
from clarke.hunt.solve import solved
from clarke.hunt.subject import Subject

F64 = torch.float64


def tensors(*values):
    return tuple(torch.tensor(v, dtype=F64) for v in values)


def test_simple_numbers_come_first():
    order = [0.0, 1.0, -1.0, 2.0, 10.0, 0.5, 0.25, 0.123, 1.2345678]
    assert sorted(order, key=complexity) == order


@pytest.mark.parametrize(
    ("point", "holds", "wanted"),
    [
        (([3.7, 0.2],), lambda p: p[0][0] == p[0][0], ([0.0, 0.0],)),
        (([3.7, 3.7],), lambda p: p[0][0] == p[0][1] != 0, ([1.0, 1.0],)),
        (([3.7, -3.7],), lambda p: p[0][0] == -p[0][1] != 0, ([1.0, -1.0],)),
        (([0.3],), lambda p: p[0][0] > 0.2, ([1.0],)),
        (([12.345],), lambda p: p[0][0] > 12, ([100.0],)),
    ],
)
def test_what_does_not_matter_becomes_simple(point, holds, wanted):
    found = shrunk(tensors(*point), holds)
    assert [x.tolist() for x in found] == list(wanted)


def test_two_entries_that_only_move_together():
    a, b = shrunk(tensors([2.625], [1.625]), lambda p: float(p[0] - p[1]) == 1)
    assert (a.tolist(), b.tolist()) in [([1.0], [0.0]), ([0.0], [-1.0])]


def test_parallel_vectors_become_unit_vectors():
    point = tensors([1.7, -2.3], [1.7, -2.3])
    a, b = shrunk(point, lambda p: torch.equal(p[0], p[1]) and bool(p[0].any()))
    assert a.tolist() == b.tolist()
    assert sorted(a.abs().tolist()) == [0.0, 1.0]


def test_rows_that_do_not_matter_are_dropped():
    point = tensors([[1.0], [2.0], [3.0]], [4.0, 5.0, 6.0], 7.0)
    found = rows_dropped(point, lambda p: bool((p[0] == 2).any()))
    assert [x.tolist() for x in found] == [[[2.0]], [5.0], 7.0]


def test_solutions_are_exact_zeros():
    def function(x, y):
        return torch.relu(3 * x - 7 * y + 0.25).sum() + (torch.exp(x) - 2).abs().sum()

    subject = Subject(function, [x.requires_grad_() for x in tensors([0.4], [0.9])], None)
    rng = random.Random(0)  # noqa: S311 - no secret
    met = set()
    for _ in range(20):
        for point in solved(subject, subject.example, rng):
            look = subject.look(point)
            assert look.touched
            met.add(tuple(sorted(p.operation for p in look.touched)))
    assert ("relu",) in met
    assert ("abs",) in met
    assert ("abs", "relu") in met


def test_finds_are_kept_and_tried_first(tmp_path):
    def function(x):
        return (torch.relu(x) - 0.1 * torch.relu(-x)).sum()

    example = torch.randn(2, dtype=F64, requires_grad=True)
    first = clarke.hunt(function, example, corpus=tmp_path)
    (kept,) = tmp_path.rglob("*.pt")
    assert [p[0].tolist() for p in Corpus(tmp_path, function).points()] == [
        first.finds[0].inputs[0].tolist()
    ]
    (kept.parent / "broken.pt").write_bytes(b"no tensor")
    again = clarke.hunt(function, example, corpus=tmp_path, seconds=10)
    assert again
    assert len(list(tmp_path.rglob("*.pt"))) == 2
