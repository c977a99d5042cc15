"""Errors planted in clarke's own arithmetic: false files come out, and the lone checker sees it.

Each breaks one rule on purpose, wherever it is used: then clarke says something false, believes it
when it verifies it, and saves it.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import clarke
from clarke.decide.exact import enumerate_exactly
from clarke.decide.limitset import LimitSet, separates
from clarke.steering import select_along, selected_gradient
from reference.proofs import CHECKED, REJECTED, independent
from reference.zoo import leaf


def plant(monkeypatch, function, broken):
    """Put something in the place of a function in every module that uses it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("clarke"):
            for key, value in list(vars(module).items()):
                if value is function:
                    monkeypatch.setattr(module, key, broken)


def doubled_slopes(monkeypatch):
    def broken(*args, **named):
        return tuple(2 * g for g in selected_gradient(*args, **named))

    plant(monkeypatch, selected_gradient, broken)


def turned_signs(monkeypatch):
    """Pieces are selected on the other side of every kink."""

    def broken(program, direction):
        return select_along(program, tuple(-d for d in direction))

    plant(monkeypatch, select_along, broken)


def lost_cells(monkeypatch):
    """The case tree forgets one half of the branches of every group of kinks."""

    def broken(*args, **named):
        found = enumerate_exactly(*args, **named)
        parts = tuple(
            replace(c, changes=c.changes[:half], cells=c.cells[:half])
            for c in found.limits.components
            for half in [max(len(c.changes) // 2, 1)]
        )
        return replace(found, limits=replace(found.limits, components=parts))

    plant(monkeypatch, enumerate_exactly, broken)


def wrong_sums(monkeypatch):
    """Inner products with a direction that separates come out with the other sign."""
    plant(monkeypatch, separates, lambda *_: True)
    right = LimitSet.place

    def broken(self, target, allowed, *rest):
        apart = np.ones(len(target)) / np.sqrt(len(target))
        return replace(right(self, target, allowed, *rest), inside=False, direction=apart, gap=1.0)

    monkeypatch.setattr(LimitSet, "place", broken)


def folds(x):
    return x[0].abs() - (x[0] + x[1]).abs() + 2 * torch.relu(x[1])


@pytest.mark.parametrize("broken", [doubled_slopes, turned_signs])
def test_derivatives_and_signs(monkeypatch, tmp_path, broken):
    broken(monkeypatch)
    found = clarke.subdifferential(folds, (leaf(0.0, 0.0),))
    proof = found.certificate("directional", torch.tensor([1.0, -0.5], dtype=torch.float64))
    assert proof.verify()
    path = clarke.save_certificate(proof, tmp_path / "false")
    assert independent(path)[0] == REJECTED


INSIDE = [0.0, 2.5], [0.0, -0.5], [1.5, 1.0], [-1.5, 1.0]


def test_lost_cells(monkeypatch, tmp_path):
    lost_cells(monkeypatch)
    found = clarke.subdifferential(folds, (leaf(0.0, 0.0),))
    answers = [found.contains(torch.tensor(v, dtype=torch.float64)) for v in INSIDE]
    false = [a for a in answers if a.inside is False]
    assert false
    for answer in false:
        assert answer.verify()
        path = clarke.save_certificate(answer, tmp_path / "false")
        assert independent(path)[0] == REJECTED
    proof = found.certificate("vertices")
    assert len(proof.argument.elements) < 4
    assert proof.verify()
    path = clarke.save_certificate(proof, tmp_path / "vertices")
    assert independent(path)[0] != CHECKED


def test_wrong_sums(monkeypatch, tmp_path):
    wrong_sums(monkeypatch)
    found = clarke.subdifferential(folds, (leaf(0.0, 0.0),))
    for vector in INSIDE:
        answer = found.contains(torch.tensor(vector, dtype=torch.float64))
        assert answer.inside is False
        path = clarke.save_certificate(answer, tmp_path / "false")
        assert independent(path)[0] == REJECTED
