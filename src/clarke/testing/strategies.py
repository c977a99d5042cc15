"""Hypothesis strategies for tensors on kinks; needs the extra `hunt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.errors import InputError

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise InputError(
        "clarke.testing.kinky needs Hypothesis. Install it with `pip install clarke[hunt]`."
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

_USUAL = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)


def kinky(
    shape: Sequence[int],
    *,
    values: Sequence[float] = (),
    dtype: torch.dtype = torch.float64,
    requires_grad: bool = True,
) -> SearchStrategy[torch.Tensor]:
    """Tensors that stand on kinks: zeros, ties, opposite entries, equal rows, given values.

    Random numbers nearly never do. Two tensors drawn from this often share entries, too.

    Args:
        shape: Their shape.
        values: Bounds and thresholds of the function under test.
        dtype: Their type.
        requires_grad: Whether they are variables.
    """
    sizes = tuple(int(n) for n in shape)
    special = (*dict.fromkeys((*_USUAL, *values, *(-v for v in values))),)
    number = st.one_of(
        st.sampled_from(special),
        st.integers(-3, 3).map(float),
        st.integers(-12, 12).map(lambda n: n / 4),
    )
    count = int(torch.Size(sizes).numel())

    @st.composite
    def tensors(draw: DrawFn) -> torch.Tensor:
        kind = draw(st.sampled_from(("entries", "equal", "few", "rows")))
        if kind == "equal":
            entries = [draw(number)] * count
        elif kind == "few":  # ties and opposites of few numbers
            few = draw(st.lists(number, min_size=1, max_size=2))
            both = st.sampled_from([*few, *(-v for v in few)])
            entries = draw(st.lists(both, min_size=count, max_size=count))
        else:
            entries = draw(st.lists(number, min_size=count, max_size=count))
        made = torch.tensor(entries, dtype=dtype).reshape(sizes)
        if kind == "rows" and len(sizes) > 1 and count:
            made = made[:1].expand(sizes).clone()
        return made.requires_grad_(requires_grad)

    return tensors()
