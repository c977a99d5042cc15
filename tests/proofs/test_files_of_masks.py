"""Proofs about programs that compute with truth values and indices are files like any other."""

import pytest
import torch
from torch.nn import functional

import clarke
from reference.proofs import REJECTED, forged, opened, own

TWO = torch.tensor([1.0], dtype=torch.float64)
PROGRAMS = {
    "any": lambda x: (x.relu() * (x > 0.5).any()).sum(),
    "all": lambda x: (x.relu() * (x > -1).all()).sum(),
    "a branch": lambda x: x.relu().sum() if (x > -1).any() else x.sum(),
    "logical_and": lambda x: (x.relu() * torch.logical_and(x > 0.5, x < 2)).sum(),
    "logical_or": lambda x: (x.relu() * torch.logical_or(x > 0.5, x > 2)).sum(),
    "&": lambda x: (x.relu() * ((x > 0.5) & (x < 2))).sum(),
    "|": lambda x: (x.relu() * ((x > 0.5) | (x > 2))).sum(),
    "^": lambda x: (x.relu() * ((x > 0.5) ^ (x > 3))).sum(),
    "~": lambda x: (x.relu() * ~(x > 0.5)).sum(),
    "isclose": lambda x: (x.relu() * torch.isclose(x, x + 1)).sum(),
    "nonzero": lambda x: x.relu()[(x > 0.5).nonzero()].sum() + x[0].relu(),
    "count_nonzero": lambda x: x.relu().sum() / torch.count_nonzero(x > 0.5),
    "isin": lambda x: (x.relu() * torch.isin((x + 0.1).round(), TWO)).sum(),
    "one_hot": lambda x: (x.relu() * functional.one_hot((x + 0.2).argmax(), 2)).sum(),
    "argsort": lambda x: x.relu()[x.argsort()].sum(),
    "isnan": lambda x: torch.where(torch.isnan(x), 0, x.relu()).sum(),
    # How many results they have, tensors without memory do not tell.
    "bincount": lambda x: (x.relu() * torch.bincount((x > 0.5).long(), minlength=2)).sum(),
    "unique": lambda x: (x.relu() * torch.unique_consecutive((x > 0.5).long()).numel()).sum(),
    "counts": lambda x: (
        x.relu() * torch.unique_consecutive((x > 0.5).long(), return_counts=True)[1].sum()
    ).sum(),
    "repeat_interleave": lambda x: (
        x.relu() * torch.repeat_interleave((x > 0.5).long() + 1).sum()
    ).sum(),
    # Known as what it is made of.
    "segments": lambda x: torch.segment_reduce(x.relu(), "sum", lengths=torch.tensor([1, 1])).sum(),
    "bucketize": lambda x: (x.relu() * torch.bucketize(x + 0.3, TWO)).sum(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_saved_read_and_verified(name, tmp_path):
    x = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    report = clarke.check(PROGRAMS[name], (x,))
    assert report.correct
    assert clarke.load_certificate(report.save(tmp_path / "a.clarke")).verify()


@pytest.mark.parametrize("name", ["bincount", "repeat_interleave"])
def test_what_values_ask_for_is_bounded_before_it_takes_memory(name, tmp_path):
    x = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    content, tensors = opened(clarke.check(PROGRAMS[name], (x,)).save(tmp_path / "a.clarke"))
    number = next(n for n, op in enumerate(content["program"]["ops"]) if name in op["op"])
    huge = {"slot": 10**6}
    content["program"]["ops"][number]["args"][0] = huge
    constant = {**content["program"]["read"][0], "slot": 10**6, "origin": "CONSTANT"}
    content["program"]["read"].append(constant)
    tensors["slot.1000000"] = torch.tensor([2**50, 2**50])
    status, why = own(forged(tmp_path / "b.clarke", content, tensors))
    assert status == REJECTED
    assert "values, too many with those before it" in why
