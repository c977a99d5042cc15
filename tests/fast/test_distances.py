"""Distances of zero: of a row from itself it stays zero; of others it is the tip of a norm."""

import pytest
import torch

import clarke
from clarke.verdict import Verdict


def verdict_of(f, x, *, quick=True, ladder=None, monkeypatch=None):
    if ladder is not None:
        import importlib

        turn = importlib.import_module("clarke.audit.turn")
        own = turn.judge
        monkeypatch.setattr(turn, "judge", lambda *a, **k: ladder.append(a) or own(*a, **k))
    with clarke.audit(seconds=20, settings=clarke.Settings(quick=quick)) as watching:
        f(x).backward()
    return watching.steps[-1].verdict


def triplet(x):
    z = torch.nn.functional.normalize(x, dim=1)
    d = torch.cdist(z, z)
    same = torch.tensor([0, 0, 1, 1])
    same = same[:, None] == same
    hardest = (d * same).amax(1) - (d + 10 * same).amin(1)
    return torch.nn.functional.softplus(hardest).sum()


def pairs(x):
    return torch.exp(-(x[:, None] - x[None]).norm(dim=-1)).triu(1).sum()


def batched(x):
    y = torch.stack([x, x + torch.arange(4.0)[:, None]])
    return torch.tanh(torch.cdist(y, y)).sum()


@pytest.mark.parametrize("f", [triplet, pairs, batched])
def test_distances_of_rows_from_themselves_need_no_ladder(f, monkeypatch):
    x = torch.tensor([[1.0, 2.0], [3.0, 1.0], [-1.0, 2.0], [0.5, -2.0]], requires_grad=True)
    climbed = []
    assert verdict_of(f, x, ladder=climbed, monkeypatch=monkeypatch) is Verdict.SMOOTH
    assert not climbed


def summed(x):
    return torch.cdist(x, x).sum()


def from_others(x):
    return torch.cdist(x, x.roll(1, 0)).sum()


def wrong_at_equal_rows(x):
    d = torch.cdist(x, x.roll(1, 0))
    return d.sum() - 2 * torch.relu(x[0, 0] - x[1, 0])


@pytest.mark.parametrize("f", [summed, from_others, wrong_at_equal_rows])
def test_equal_rows_are_judged_as_the_whole_ladder_does(f):
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [-1.0, 2.0]])
    quick, ladder = (
        verdict_of(f, x.clone().requires_grad_(), quick=quick) for quick in (True, False)
    )
    assert quick is ladder
    assert quick is not Verdict.SMOOTH


@pytest.mark.parametrize("mask", [[[0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]])
def test_a_norm_moves_where_one_of_its_elements_does(mask):
    """The first element of the first row stays zero, its second does not."""
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    m = torch.tensor(mask)
    verdict = verdict_of(lambda x: torch.linalg.vector_norm(x * m, dim=-1).sum(), x)
    assert verdict in (Verdict.CLARKE, Verdict.BOULIGAND)
