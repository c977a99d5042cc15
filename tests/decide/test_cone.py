"""Cones of directions, against exact linear feasibility."""

from hypothesis import given
from hypothesis import strategies as st

from clarke.arrangement import integer_row
from clarke.decide.cone import Cone
from reference import strict_direction


def positive(cone, rows):
    inside = cone.interior() if cone.rays else (1,) * len(rows[0])
    return all(sum(a * b for a, b in zip(row, inside, strict=True)) > 0 for row in rows)


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-2, 2), min_size=n, max_size=n).filter(any),
            min_size=1,
            max_size=9,
        )
    )
)
def test_cuts_agree_with_exact_feasibility(rows):
    cone = Cone.whole(len(rows[0]))
    kept = []
    for row in rows:
        cut = cone.cut(tuple(row))
        feasible = strict_direction([*kept, row], len(row)) is not None
        assert (cut is not None) is feasible
        if cut is not None:
            cone = cut
            kept.append(row)
            assert positive(cone, kept)


def test_integer_rows_are_exact():
    assert integer_row([0.5, 0.25]) == (2, 1)
    assert integer_row([1e-30, 2e-30]) == (1, 2)
    assert integer_row([3.0, -6.0, 0.0]) == (1, -2, 0)
    third = 1 / 3
    row = integer_row([third, 1.0])
    assert row[0] / row[1] == third
