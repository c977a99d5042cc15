"""A cure of NaN is shown as code only where it was run at the point and judged right."""

import pytest
import torch

import clarke
from clarke import Verdict
from clarke.decide import identities
from reference.leaves import leaf

TRIED = "Tried here: it makes the gradient right."


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64, requires_grad=True)


def row(*values):
    return torch.tensor([values, (0.0, 1.0)], dtype=torch.float64, requires_grad=True)


PASSES = {
    "norms of rows": (
        lambda x: (x**2).sum(1, keepdim=True).sqrt().sum(),
        zeros(2, 3),
        "vector_norm(x, dim",
    ),
    "distances": (
        lambda x: torch.sqrt(((x[:, None] - x[None]) ** 2).sum(-1)).sum(),
        zeros(2, 2),
        "vector_norm(x, dim",
    ),
    "by hand": (
        lambda x: torch.sqrt(x[0] ** 2 + x[1] ** 2),
        leaf(0.0, 0.0),
        "vector_norm(torch.stack((a, b)), dim=0)",
    ),
    "root mean square": (lambda x: (x**2).mean().sqrt(), leaf(0.0, 0.0), "x.numel() ** 0.5"),
    "root of a square": (lambda x: torch.sqrt(x * x).sum(), leaf(0.0, 1.0), "torch.abs(x)"),
    "power of a square": (
        lambda x: ((x**2) ** 0.75).sum(),
        leaf(0.0, 1.0),
        "torch.abs(x) ** (2 * p)",
    ),
    "power of squares": (
        lambda x: (x * x).sum() ** 0.75,
        leaf(0.0, 0.0),
        "(x, dim=...) ** (2 * p)",
    ),
    "scaled": (lambda x: ((x**2).sum() / 3).sqrt(), leaf(0.0, 0.0), "vector_norm"),
    "two in a line": (
        lambda x: (x**2).sum().sqrt() + ((3 * x) ** 2).sum().sqrt(),
        leaf(0.0, 0.0),
        "vector_norm",
    ),
    "direction": (lambda x: (x / x.norm()).sum(), leaf(0.0, 0.0), "a / b.clamp_min(eps)"),
    "saturated": (
        lambda x: torch.log(1 - torch.sigmoid(x)).sum(),
        torch.tensor([100.0, -1.0], requires_grad=True),
        "logsigmoid(-x)",
    ),
    "softplus": (lambda x: torch.log(1 + torch.exp(x)).sum(), leaf(1000.0, 0.0), "softplus(x)"),
    "log1p": (lambda x: torch.log1p(torch.exp(x)).sum(), leaf(1000.0, 0.0), "softplus(x)"),
    "sigmoid": (
        lambda x: (1 / (1 + torch.exp(-x))).sum(),
        leaf(-1000.0, 0.0),
        "torch.sigmoid(x)",
    ),
    "softmax": (
        lambda x: (torch.exp(x) / torch.exp(x).sum(1, keepdim=True))[:, 0].sum(),
        row(1000.0, 0.0),
        "torch.softmax(x, dim)",
    ),
    "rows of exponentials": (
        lambda x: torch.log(torch.exp(x).sum(1)).sum(),
        row(1000.0, 0.0),
        "torch.logsumexp(x, dim)",
    ),
    "two exponentials": (
        lambda x: torch.log(torch.exp(x[0]) + torch.exp(x[1])),
        leaf(1000.0, 0.0),
        "torch.logaddexp(a, b)",
    ),
    "a row of infinities": (
        lambda x: torch.softmax(x.masked_fill(torch.ones(2, dtype=bool), -torch.inf), 0)[0],
        leaf(0.0, 1.0),
        "torch.finfo(x.dtype).min",
    ),
    "chosen by the value": (
        lambda x: torch.where((y := torch.log(x)) > -5, y, 0 * y).sum(),
        leaf(0.0, 1.0),
        "torch.log(x.clamp_min(eps))",
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_what_was_tried_is_shown(name):
    function, point, said = PASSES[name]
    found = clarke.check(function, (point,))
    assert found.verdict in (Verdict.NONFINITE, Verdict.NOT_LIPSCHITZ)
    (cure,) = found.cures
    assert said in cure
    assert cure.endswith(TRIED)


# A step at the point; an overflow of what is summed; a root in place; a bare infinity.
FAILS = {
    "step": (lambda x: (1 / x).masked_fill(x == 0, 0).sum(), leaf(0.0, 1.0), "Of reciprocal"),
    "overflow": (lambda x: torch.exp(x).sum(), leaf(1000.0, 0.0), "subtract the maximum"),
    "in place": (lambda x: (x**2).sum(1).sqrt_().sum(), zeros(2, 3), "keep what it reads above 0"),
    "branch": (
        lambda x: torch.where(x.abs() < 1, torch.acos(x), x).sum(),
        leaf(1.0, 0.0),
        "keep what it reads between these",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_where_nothing_is_right_no_code_is_shown(name):
    function, point, words = FAILS[name]
    found = clarke.check(function, (point,))
    assert found.verdict in (Verdict.NONFINITE, Verdict.NOT_LIPSCHITZ)
    (said,) = found.cures
    assert words in said
    assert "Tried here" not in said
    assert "clamp_min(" not in said
    assert "torch.where(mask" not in said


def test_two_lines_are_mended_together():
    def function(x):
        a = torch.log(x).sum()
        b = torch.acos(1 - x).sum()
        return a * 0 + b

    (cure,) = clarke.check(function, (leaf(0.0, 1.0),)).cures
    assert "torch.log(x.clamp_min(eps))" in cure
    assert "torch.acos(x.clamp(-1 + eps, 1 - eps))" in cure
    assert cure.endswith("Tried here: together they make the gradient right.")


def test_a_wrong_rewriting_is_not_shown(monkeypatch):
    """Finite is not enough: relu(x) - relu(-x) has the gradient 0 at 0, where 1 is right."""
    aten = torch.ops.aten

    def kinked(draft, ref):
        x = draft.maker(draft.maker(ref).args[0]).args[0]
        below = draft.call(aten.relu.default, draft.call(aten.neg.default, x))
        both = draft.call(aten.sub.Tensor, draft.call(aten.relu.default, x), below)
        return draft.call(aten.sum.default, both)

    def function(x):
        return (x**2).sum().sqrt()

    assert TRIED in clarke.check(function, (leaf(0.0, 0.0),)).cures[0]
    monkeypatch.setattr(identities, "root", kinked)
    assert "vector_norm" not in clarke.check(function, (leaf(0.0, 0.0),)).cures[0]


def test_a_root_of_other_things_is_no_norm():
    (said,) = clarke.check(lambda x: torch.sqrt((x**4).sum()), (leaf(0.0, 0.0),)).cures
    assert "vector_norm" not in said


def test_an_audit_shows_the_same():
    x = torch.zeros(2, 3, requires_grad=True)
    with clarke.audit(on_nonfinite=lambda _: None) as audit:
        (x**2).sum(1).sqrt().sum().backward()
    (cure,) = audit.steps[0].cures
    assert "torch.linalg.vector_norm" in cure
    assert cure.endswith(TRIED)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda x: torch.where(x != 0, torch.sin(x) / x, torch.ones_like(x)).sum(),
            "torch.where(mask, a / torch.where(mask, x, 1), other)",
        ),
        (
            lambda x: torch.where(x > 0.5, x**0.4, 2 * x).sum(),
            "torch.where(mask, torch.where(mask, x, 1) ** p, other)",
        ),
    ],
)
def test_what_is_no_call_is_written_as_it_is(function, said):
    (cure,) = clarke.check(function, (leaf(0.0, 1.0),)).cures
    assert said in cure
