"""clarke.jacobian and clarke.check_jacobian against brute force on piecewise linear maps."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import clarke
from clarke import Verdict
from reference.leaves import zeros

F64 = torch.float64


def piecewise_linear(seed, sizes=(2, 3)):
    """A random map through the origin, with its kinks there, of small whole numbers."""
    rng = np.random.default_rng(seed)
    n, m = sizes

    def weights(*shape):
        return torch.tensor(rng.integers(-2, 3, shape), dtype=F64)

    first, second, straight, third = weights(3, n), weights(3, n), weights(m, n), weights(m, 3)
    kind = int(rng.integers(4))

    def function(x):
        a, b = first @ x, second @ x
        hidden = (
            torch.relu(a),
            torch.maximum(a, b),
            a.abs() - torch.relu(b),
            torch.relu(a) - torch.relu(-a),
        )[kind]
        return third @ hidden + straight @ x

    return function


def everywhere(function, n, count=300):
    """The Jacobians of all pieces that random directions meet."""
    generator = torch.Generator().manual_seed(7)
    found = {}
    for _ in range(count):
        x = torch.randn(n, generator=generator, dtype=F64)
        j = torch.autograd.functional.jacobian(function, x)
        found[tuple(j.reshape(-1).tolist())] = j
    return list(found.values())


def is_mixture(matrix, matrices):
    columns = np.stack([m.reshape(-1).numpy() for m in matrices], 1)
    system = np.vstack([columns, np.ones(columns.shape[1])])
    outcome = linprog(
        np.zeros(columns.shape[1]), A_eq=system, b_eq=np.append(matrix.reshape(-1).numpy(), 1)
    )
    return outcome.status == 0


@pytest.mark.parametrize("seed", range(3))
def test_is_the_jacobian_of_a_piece(seed):
    function = piecewise_linear(seed)
    pieces = everywhere(function, 2)
    generator = torch.Generator().manual_seed(seed)
    for given in (None, generator, generator):
        found = clarke.jacobian(function, zeros(2), generator=given)
        assert any(torch.allclose(found.matrix, p) for p in pieces)
        assert found.verify()


@pytest.mark.parametrize("seed", range(3))
def test_matrices_are_judged_as_brute_force_does(seed):
    function = piecewise_linear(seed)
    pieces = everywhere(function, 2)
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(len(pieces), generator=generator, dtype=F64)
    mixed = sum(w * p for w, p in zip(shares / shares.sum(), pieces, strict=True))
    rows = torch.stack([pieces[i % len(pieces)][i] for i in range(3)])  # of several pieces
    autograd = torch.autograd.functional.jacobian(function, torch.zeros(2, dtype=F64))
    for matrix in (pieces[0], pieces[-1], mixed, rows, autograd, mixed + 5):
        report = clarke.check_jacobian(function, zeros(2), matrix)
        right = is_mixture(matrix, pieces)
        assert report.verdict.correct is right, (matrix, report)
        if right:
            again = sum(w * p for w, p in zip(report.weights, report.parts, strict=True))
            assert torch.allclose(again, matrix)
        else:
            assert any(torch.allclose(report.element, p) for p in pieces)


def test_rows_that_are_right_each_and_wrong_together():
    """|x| twice, told apart: (1, -1) has two right rows, and no point nearby has both."""

    def twice(x):
        return torch.cat([x.abs(), torch.maximum(x, -x)])

    wrong = torch.tensor([[1.0], [-1.0]], dtype=F64)
    report = clarke.check_jacobian(twice, zeros(1), wrong)
    assert report.verdict is Verdict.NOT_CLARKE
    for value in (1.0, -1.0):
        good = torch.full((2, 1), value, dtype=F64)
        assert clarke.check_jacobian(twice, zeros(1), good).verdict is Verdict.BOULIGAND
    middle = clarke.check_jacobian(twice, zeros(1), torch.full((2, 1), 0.5, dtype=F64))
    assert middle.verdict is Verdict.CLARKE


def test_products_without_the_matrix():
    function = piecewise_linear(3, (3, 4))
    found = clarke.jacobian(function, zeros(3))
    u, v = torch.randn(3, dtype=F64), torch.randn(4, dtype=F64)
    assert torch.allclose(found.push(u), found.matrix @ u)
    assert torch.allclose(found.pull(v)[0], found.matrix.T @ v)


def test_several_variables_outputs_and_parameters():
    layer = torch.nn.Linear(2, 3).double()
    with torch.no_grad():
        layer.bias.zero_()

    def function(x):
        y = torch.relu(layer(x))
        return y, y.max()

    found = clarke.jacobian(function, zeros(2))
    assert found.matrix.shape == (4, 2 + 6 + 3)
    assert [tuple(b.shape) for b in found.blocks()] == [(4, 2), (4, 3, 2), (4, 3)]
    assert found.verify()
    assert clarke.check_jacobian(function, zeros(2), found.matrix).verdict.correct


def test_smooth_functions_have_autograds_jacobian():
    x = torch.tensor([0.3, -1.2], dtype=F64, requires_grad=True)
    function = lambda x: torch.stack([x.sin().sum(), x.prod(), x[0].exp()])  # noqa: E731
    expected = torch.autograd.functional.jacobian(function, x.detach())
    assert torch.allclose(clarke.jacobian(function, x).matrix, expected)
    assert clarke.check_jacobian(function, x, expected).verdict is Verdict.SMOOTH


def test_single_precision():
    x = torch.zeros(2, requires_grad=True)
    found = clarke.jacobian(lambda x: torch.relu(x) - torch.relu(-x), x)
    assert torch.equal(found.matrix, torch.eye(2))
    assert found.matrix.dtype is torch.float32


def test_a_changed_proof_fails():
    from dataclasses import replace

    from reference.forgery import altered

    found = clarke.jacobian(lambda x: torch.stack([x.abs().sum(), x.sum()]), zeros(2))
    assert found.verify()
    witness = found.certificate.witnesses[0]
    turned = replace(witness, direction=tuple(-d for d in witness.direction))
    forged = replace(found, certificate=altered(found.certificate, witnesses=(turned,)))
    assert not forged.verify()
    changed = clarke.jacobian(lambda x: torch.stack([x.abs().sum(), x.sum()]), zeros(2))
    changed.matrix[0, 0] += 1  # a cached tensor that a user wrote to
    assert not changed.verify()


def test_what_cannot_be_answered_is_refused():
    with pytest.raises(clarke.InputError, match=r"of shape \(3, 2\)"):
        clarke.check_jacobian(piecewise_linear(0), zeros(2), torch.zeros(2, 2, dtype=F64))
    with pytest.raises(clarke.UnsupportedError, match="vouched for"):
        clarke.jacobian(lambda x: torch.stack([x.sqrt().sum(), x.sum()]), zeros(1))
    with pytest.raises(clarke.InputError, match="not finite"):
        clarke.jacobian(lambda x: torch.stack([x.log().sum(), x.sum()]), zeros(1))
    with pytest.raises(clarke.InputError, match="return a tensor"):
        clarke.jacobian(lambda x: "no tensor", zeros(1))


def test_newtons_method_on_a_complementarity_problem():
    """The normal map M x+ - x- + q from zero: autograd's matrix there is zero."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        a = torch.randn(6, 6, generator=generator, dtype=F64)
        matrix, q = a @ a.T + torch.eye(6), torch.randn(6, generator=generator, dtype=F64)

        def normal_map(x, matrix=matrix, q=q):
            return matrix @ torch.relu(x) - torch.relu(-x) + q

        assert not torch.autograd.functional.jacobian(normal_map, torch.zeros(6, dtype=F64)).any()
        x = torch.zeros(6, dtype=F64)
        for _ in range(20):
            if float(normal_map(x).abs().max()) < 1e-10:
                break
            found = clarke.jacobian(normal_map, x.requires_grad_())
            x = (x - torch.linalg.solve(found.matrix, normal_map(x))).detach()
        z = torch.relu(x)
        assert float(torch.minimum(z, matrix @ z + q).abs().max()) < 1e-9


def test_a_prompt_shows_it_in_a_line():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    shown = repr(clarke.jacobian(torch.relu, (x,)))
    assert "shape (2,)" in shown
    assert len(shown.splitlines()) == 1
