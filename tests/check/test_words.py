"""What a report says of a kink and of a witness, in plain words."""

import pytest
import torch
from torch.nn import functional

import clarke


def at(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


CHOICES = [
    (lambda x: torch.relu(x).sum(), (0.0,), "took the left side", (0.0,)),
    (lambda x: functional.hardsigmoid(x).sum(), (3.0,), "took the right side", (0.0,)),
    (lambda x: functional.leaky_relu(x).sum(), (0.0,), "took the left side", (0.01,)),
    (lambda x: x.abs().sum(), (0.0,), "took the mean of both sides", (0.0,)),
    (lambda x: torch.maximum(x, torch.zeros_like(x)).sum(), (0.0,), "mean of both sides", (0.5,)),
    (lambda x: torch.maximum(x[0], x[1]), (1.0, 1.0), "took the mean of both slopes", ()),
    (lambda x: functional.hardtanh(x).sum(), (-1.0, 1.0), "took one of the sides", (0.0,)),
    (lambda x: x.max(0).values, (1.0, 1.0), "took one of the tied elements", ()),
    (lambda x: x.amax(), (1.0, 1.0, 1.0), "shared the slope equally among all tied elements", ()),
    (lambda x: torch.where(x > 0, x, -x).sum(), (0.0,), "followed the value that ran", ()),
]


@pytest.mark.parametrize(("function", "point", "words", "slopes"), CHOICES)
def test_what_autograd_chose(function, point, words, slopes):
    kink = clarke.check(function, (at(*point),)).kinks[0]
    assert kink.choice.startswith("autograd ")
    assert kink.choice.endswith(words)
    assert kink.slopes == pytest.approx(slopes)


def test_a_slope_that_varies_is_not_part_of_the_words():
    """An audit keeps every text once: they must not be as many as there are steps."""
    texts = set()
    for slope in (0.25, 0.26):
        weight = torch.tensor([slope], dtype=torch.float64)
        report = clarke.check(lambda x, w=weight: functional.prelu(x, w).sum(), (at(0.0),))
        texts.add(report.kinks[0].choice)
    assert texts == {"autograd took the left side"}


def test_the_witness_is_a_direction_in_which_the_gradient_is_this_one():
    text = str(clarke.check(lambda x: torch.relu(x).sum(), (at(0.0),)))
    assert "just beside the point, towards [-1], the gradient is this one" in text


def test_a_mixture_shows_the_gradients_that_it_mixes():
    text = str(clarke.check(lambda x: x.abs().sum(), (at(0.0),)))
    assert "0.5 of [1], the gradient towards [" in text
    assert "0.5 of [-1], the gradient towards [-" in text


def test_two_of_one_line_are_both():
    report = clarke.check(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), (at(0.0),))
    assert "these disagree: both relus at" in str(report)


def test_the_text_has_eighty_columns():
    report = clarke.check(lambda x: x.amax(), (at(*[0.0] * 7),))
    assert max(map(len, str(report).splitlines())) <= 80


def test_the_few_elements_on_a_kink_are_named():
    text = str(clarke.check(lambda x: torch.relu(x).sum(), (at(1.0, 0.0, 2.0),)))
    assert "1 touched (element 1), 1 relevant" in " ".join(text.split())
    text = str(clarke.check(lambda x: torch.relu(x).sum(), (at(0.0, 1.0, 0.0),)))
    assert "2 touched (elements 0, 2), 2 relevant" in " ".join(text.split())
    many = at(*[0.0] * 9, 1.0)
    assert "(element" not in str(clarke.check(lambda x: torch.relu(x).sum(), (many,)))


def test_a_direction_shows_no_roundings():
    from types import SimpleNamespace

    from clarke.report.text import _witnesses

    witness = SimpleNamespace(
        direction=(torch.tensor([-0.5, 3e-19], dtype=torch.float64),),
        gradient=(torch.tensor([1.0, 0.0]),),
        rows=[1],
    )
    certificate = SimpleNamespace(witnesses=(witness,), weights=(1.0,))
    (line,) = _witnesses(SimpleNamespace(certificate=certificate))
    assert "towards [-0.5, 0], the gradient is this one" in line.text
