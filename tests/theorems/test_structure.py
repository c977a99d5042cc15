"""What `explain` tells of a structure, held against what the program does at random values."""

import json

import pytest
import torch
from torch import nn

import clarke
from clarke.cli import main
from clarke.theorems.facts import Way


class Watched:
    """`relu` and what it was given, in order."""

    def __init__(self):
        self.inputs = []

    def __call__(self, x):
        self.inputs.append(x)
        return torch.relu(x)


def at_a_sum(relu, w, b):
    return relu(w * 2 + b).sum()


def partly_constant(relu, w, b):
    return relu(torch.stack([w[0], w[1] * 0.0, b[0]])).sum()


def twice(relu, w, b):
    return relu(relu(w) + w - b).sum()


def twins(relu, w, b):
    return (relu(w.sum() + b) * relu(-2 * b)).sum()


def side_by_side(relu, w, b):
    return relu(w).sum() + relu(b.exp()).sum()


def masked(relu, w, b):
    return relu(torch.where(torch.tensor([True, False]), w, torch.zeros(2)) + 0 * b).sum()


PROGRAMS = [at_a_sum, partly_constant, twice, twins, side_by_side, masked]


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_reaches_a_kink_and_what_is_null(program):
    w, b = (torch.randn(2, requires_grad=True) for _ in range(2))
    structure = clarke.explain(lambda w, b: program(torch.relu, w, b), (w, b)).structure
    watched, names = Watched(), {f"leaf of shape {tuple(w.shape)}"}
    assert set(structure.variables) == names
    moved = None
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        w, b = (torch.randn(2, generator=generator).requires_grad_() for _ in range(2))
        watched.inputs.clear()
        program(watched, w, b)
        found = []
        for x in watched.inputs:
            rows = [
                torch.autograd.grad(e, [w, b], retain_graph=True, allow_unused=True)
                if x.requires_grad
                else (None, None)
                for e in x.reshape(-1)
            ]
            zero = torch.zeros(2)
            found.append([[g is not None and bool((g != zero).any()) for g in r] for r in rows])
        moved = (
            found
            if moved is None
            else [
                [[p or q for p, q in zip(m, n, strict=True)] for m, n in zip(a, c, strict=True)]
                for a, c in zip(moved, found, strict=True)
            ]
        )
    assert len(structure.kinks) == len(moved)
    for kink, entries in zip(structure.kinks, moved, strict=True):
        # Nothing that moves is called null, and everything that moves it is named.
        assert kink.null <= sum(not any(e) for e in entries)
        reached = sum(any(e[i] for e in entries) for i in range(2))
        assert reached <= len(kink.reached_by)
    assert sum(k.null for k in structure.kinks) == {partly_constant: 1, masked: 1}.get(program, 0)


def test_ways_and_neighbours():
    w, b = (torch.randn(2, requires_grad=True) for _ in range(2))

    def of(program):
        return clarke.explain(lambda w, b: program(torch.relu, w, b), (w, b)).structure

    (kink,) = of(at_a_sum).kinks
    assert [r.way for r in kink.reached_by] == [Way.SHIFT, Way.SHIFT]
    assert kink.settled_by
    first, second = of(twice).kinks
    assert (first.after, second.after) == ((), (0,))
    assert {r.way for r in first.reached_by} == {Way.AFFINE}
    assert {r.way for r in second.reached_by} == {Way.BOTH, Way.SHIFT}
    one, two = of(side_by_side).kinks
    assert one.after == two.after == ()
    assert [r.way for r in two.reached_by] == [Way.SMOOTH]


def test_what_stands_in_the_way_is_told():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.MaxPool1d(2), nn.Linear(2, 2))
    found = clarke.explain(model, torch.zeros(5, 3)).structure
    assert found.variables[:2] == ("0.weight", "0.bias")
    assert found.kinks[0].settled_by == "0.bias"
    assert "a maximum over several elements" in found.maxima[0]
    text = str(found)
    assert "settled by 0.bias" in text
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(json.dumps(found.to_dict()))["kinks"][0]["reached_by"]["0.bias"] == "SHIFT"


def test_the_command_prints_it(capsys, tmp_path, monkeypatch):
    (tmp_path / "made_to_print.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def mlp():\n"
        "    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(2, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    for extra in ((), ("--json",)):
        with pytest.raises(SystemExit) as stopped:
            main(["explain", "made_to_print:mlp", "--structure", *extra])
        assert not stopped.value.code
        out = capsys.readouterr().out
        if extra:
            assert json.loads(out)["structure"]["kinks"][0]["settled_by"] == "0.bias"
        else:
            assert (
                "  0  relu at 1 (2, 4)\n     lambda 0 at 0\n     reached as a shift: 0.bias\n"
                in out
            )
