"""Cases that fuzzers of second derivatives, sets and known gaps brought up, with their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as tf

import clarke

if TYPE_CHECKING:
    from collections.abc import Callable

D = torch.float64


def test_an_undefined_adjoint_is_no_crash() -> None:
    def penalty(x: torch.Tensor) -> torch.Tensor:
        two = x[None, :, None].expand(1, 2, 2) * torch.tensor([1.0, 2.0], dtype=D)
        v = tf.group_norm(two, 1)[0, :, 0] * 1
        v[1:].relu_()
        value = (v * torch.tensor([-1.0, 1.5], dtype=D)).sum()
        (g,) = torch.autograd.grad(value, x, create_graph=True)
        return (g * x).sum()

    x = torch.tensor([-1.0, 1.0], dtype=D, requires_grad=True)
    assert clarke.check(penalty, (x,)).verdict is clarke.Verdict.SMOOTH


def test_shapes_are_told_without_sympy(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.broadcast_shapes`` imports it: seconds of the first check's time limit."""
    monkeypatch.delattr(torch, "broadcast_shapes")
    y = torch.ones(1, dtype=D, requires_grad=True)

    def f(x: torch.Tensor) -> torch.Tensor:
        return ((x > y) * (x - y) + torch.maximum(x, y) + tf.huber_loss(x, y)).sum()

    with pytest.warns(UserWarning, match="size"):
        report = clarke.check(f, (torch.ones(3, dtype=D, requires_grad=True),))
    assert report.correct is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_standardised_constants(n: int, dtype: torch.dtype) -> None:
    """Slopes of 1e5 at a distance of 1e-6, and none at the point: the guard is 1e-6."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return ((x - x.mean()) / (x.std() + 1e-6)).pow(2).sum()

    report = clarke.check(f, (torch.ones(n, dtype=dtype, requires_grad=True),))
    assert report.verdict is clarke.Verdict.SMOOTH
    assert not report.gradient[0].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("table", "after", "verdict"),
    [
        (lambda w: w * 2, lambda e: e.pow(2).sum(), "SMOOTH"),
        (lambda w: w - 1, lambda e: e.abs().sum(), "CLARKE"),
        (lambda w: w @ torch.ones(3, 2, dtype=w.dtype), lambda e: e.exp().sum(), "SMOOTH"),
        (lambda w: w, lambda e: e.pow(2).sum(), "SMOOTH"),
        (lambda w: w - 1, lambda e: (e.relu() - (-e).relu()).sum(), "NOT_CLARKE"),
    ],
)
def test_padding_rows_of_computed_tables(
    table: Callable[[torch.Tensor], torch.Tensor],
    after: Callable[[torch.Tensor], torch.Tensor],
    verdict: str,
    dtype: torch.dtype,
) -> None:
    index = torch.tensor([0, 1, 2])
    w = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    report = clarke.check(lambda w: after(tf.embedding(index, table(w), padding_idx=0)), (w,))
    assert report.verdict.name == verdict
    assert len([n for n in report.notes if "padding_idx" in n]) == 1


def _largest_of_largest(seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b, c = (torch.randint(-2, 3, (4, 3), generator=generator).to(D) for _ in range(3))
    kind, sign = seed % 5, 1.0 if seed % 2 else -1.0

    def f(z: torch.Tensor) -> torch.Tensor:
        if kind == 0:
            value = (a @ z).abs().amax()
        elif kind == 1:
            value = ((a @ z).relu() + b @ z).amax() + (c @ z).abs().sum()
        elif kind == 2:
            value = torch.stack([a @ z, b @ z]).amax(0).amax() + z[0]
        elif kind == 3:
            value = (2 * (a @ z).abs() + (b @ z)).amax() + 3 * (a @ z)[0].abs()
        else:
            value = -(-torch.maximum(a @ z, b @ z) - (c @ z)).amin()
        return sign * value

    return f


@pytest.mark.parametrize("seed", range(10))
def test_absorbed_kinks_leave_the_estimate(seed: int) -> None:
    """The support function without a list is that of the listed set, and AD's shares give AD's."""
    from clarke.decide.regularset import RegularSet

    z = torch.zeros(3, dtype=D, requires_grad=True)
    listed = clarke.subdifferential(_largest_of_largest(seed), (z,))
    program = listed.program
    found = RegularSet.of(program, torch.Generator().manual_seed(0), program.deadline)
    assert found is not None
    assert found.outer.mixing is None
    vertices = listed.vertices()
    for d in torch.randn(20, 3, dtype=D, generator=torch.Generator().manual_seed(seed)):
        value, element = found.outer.extreme(d.numpy())
        assert value == pytest.approx(float((vertices @ d).max()), abs=1e-9)
        assert listed.contains(torch.from_numpy(element))
    shares = found.outer.atoms.shares
    assert shares is not None
    assert torch.from_numpy(found.outer.mean(shares)).allclose(listed.gradient[0], atol=1e-9)


@pytest.mark.parametrize("rows", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_largest_absolute_value(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(rows, 50, dtype=D, generator=generator)
    z = torch.zeros(50, dtype=D, requires_grad=True)
    found = clarke.subdifferential(lambda z: (matrix @ z).abs().amax(), (z,))
    half = found.contains((matrix[0] - matrix[1]) / 2)
    far = found.contains(2 * matrix[0])
    assert half.inside is True
    assert half.verify()
    assert far.inside is False
    assert far.verify()
    assert float(found.min_norm()[0].norm()) < 1e-9
    slope = float((matrix @ matrix[0]).abs().max())
    assert found.directional(matrix[0]) == pytest.approx(slope)
    assert found.is_stationary().stationary


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [7, 100, 100_000])
def test_medians_of_many_equals(count: int, dtype: torch.dtype) -> None:
    """Autograd shares evenly among all that are tied: each may be the median."""
    x = torch.zeros(count, dtype=dtype, requires_grad=True)
    report = clarke.check(torch.median, (x,))
    assert report.verdict is clarke.Verdict.CLARKE
    assert report.gradient[0].allclose(torch.full_like(x, 1 / count))


def _free(f: Callable[[torch.Tensor], torch.Tensor], n: int) -> bool:
    from clarke.decide.freely import moves_freely
    from clarke.decide.normal import outer_estimate

    z = torch.zeros(n, dtype=D, requires_grad=True)
    program = clarke.subdifferential(f, (z,)).program
    return moves_freely(outer_estimate(program, torch.Generator().manual_seed(0)))


def test_candidates_that_move_freely() -> None:
    assert _free(lambda z: z[:3].median() - z[3:].median(), 6)
    assert _free(lambda z: z[:3].median() - 2 * z[3:5].amax() + z[5].relu(), 6)
    assert not _free(lambda z: z.median() - z.amax(), 3)  # both read all
    assert not _free(lambda z: torch.stack([z[0], z[1], z[0] + z[1]]).median(), 2)
    assert not _free(lambda z: z[0].relu() - (z[0] + z[1]).relu() + z[1].abs(), 2)


def test_medians_of_dependent_values() -> None:
    """Of x, x and -x + y no candidate is free of the others."""

    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([z[0], z[0], z[1] - z[0]]).median() + z[1].abs()

    z = torch.zeros(2, dtype=D, requires_grad=True)
    report = clarke.check(f, (z,))
    truth = clarke.subdifferential(f, (z,))
    assert report.correct is bool(truth.contains(report.gradient[0]))
