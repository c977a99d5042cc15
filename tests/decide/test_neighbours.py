"""AD's selection active nowhere nearby, in programs too large to go through all selections."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clarke
from clarke.decide import Settings
from clarke.decide.limits import Limits
from clarke.verdict import Verdict

NO_ENUMERATION = Settings(exact=Limits(nodes=0, cells=0, kinks=0))
SETS = st.lists(
    st.tuples(*[st.tuples(st.integers(-1, 1), st.integers(-1, 1))] * 2), min_size=2, max_size=4
)


def pools(patches, weights):
    """A sum of maxima of two linear functions of w each, which tie at w = 0; AD takes the first."""

    def function(w):
        pairs = torch.tensor(patches, dtype=w.dtype) @ w
        return (torch.nn.functional.max_pool1d(pairs[:, None], 2).flatten() * weights).sum()

    return function


def verdict_of(patches, weights, own=NO_ENUMERATION):
    w = torch.zeros(len(patches[0][0]), dtype=torch.float64, requires_grad=True)
    weights = torch.tensor(weights, dtype=torch.float64)
    return clarke.check(pools(patches, weights), (w,), settings=own)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (-2.0, -1.0)])
def test_two_windows_with_their_elements_exchanged(weights):
    # max(w, 2w) and max(2w, w): AD takes w once and 2w once, which happens for no w other than 0.
    report = verdict_of([[[1.0], [2.0]], [[2.0], [1.0]]], weights)
    assert report.verdict is Verdict.CLARKE
    assert report.theorem == "mixture of witnesses"
    assert report.certificate.verify()
    assert len(report.certificate.witnesses) == 2


def test_neighbours_whose_gradients_differ_by_less_than_rounding():
    tiny = 2.0**-60
    report = verdict_of(
        [[[1.0], [1 + 2.0**-20]], [[1 + 2.0**-20], [1.0]], [[4.0], [0.0]]], (tiny, tiny, 1.0)
    )
    assert report.verdict is Verdict.BOULIGAND
    assert report.theorem == "witness of a neighbour"
    assert report.certificate.verify()


def test_opposite_weights_are_wrong():
    # c max(w, 2w) - c max(2w, w) = 0, and AD says -c: both windows are one kink.
    patches = [[[1.0], [2.0]], [[2.0], [1.0]]]
    report = verdict_of(patches, (1.0, -1.0))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.theorem == "outer estimate"
    assert verdict_of(patches, (1.0, -1.0), Settings()).verdict is Verdict.NOT_CLARKE


def test_three_windows_of_which_no_two_contradict_each_other():
    patches = [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]
    report = verdict_of(patches, (1.0, 2.0, 3.0))
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.verify()
    assert sum(report.certificate.weights) == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(patches=SETS, data=st.data())
def test_what_is_said_is_what_the_enumeration_says(patches, data):
    weights = data.draw(
        st.lists(
            st.sampled_from((-2.0, -1.0, 1.0, 2.0)), min_size=len(patches), max_size=len(patches)
        )
    )
    patches = [[list(map(float, a)), list(map(float, b))] for a, b in patches]
    quick, slow = verdict_of(patches, weights), verdict_of(patches, weights, Settings())
    assert slow.verdict is not Verdict.UNDECIDED
    assert quick.verdict is Verdict.UNDECIDED or quick.verdict.correct == slow.verdict.correct
    if quick.verdict is Verdict.BOULIGAND:
        assert slow.verdict is Verdict.BOULIGAND


def test_several_pairs_are_turned_together_and_the_nearest_neighbour_first():
    # Four pairs of windows that contradict each other, beside one window of which AD's piece is
    # active. Turning the second of each pair moves the gradient by less than rounding, the first
    # by much more: one of sixteen selections is as good as AD's, and none turns one window only.
    tiny = 2.0**-60
    patches, weights = [[[4.0] + [0.0] * 4, [0.0] * 5]], [1.0]
    for pair in range(4):
        unit = [float(pair + 1 == i) for i in range(5)]
        double = [2 * u for u in unit]
        patches += [[unit, double], [double, unit]]
        weights += [1.0, tiny]
    report = verdict_of(patches, weights, replace(NO_ENUMERATION, selections=5))
    assert report.verdict is Verdict.BOULIGAND
    assert report.theorem == "witness of a neighbour"
    assert report.certificate.verify()
    (witness,) = report.certificate.witnesses
    (choice,) = witness.choices.values()
    assert [int(c) for c in choice] == [0, 2, 5, 6, 9, 10, 13, 14, 17]
