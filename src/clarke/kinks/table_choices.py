"""Operations that return one of several elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clarke.kinks.choices import ArgRule, ReductionRule
from clarke.kinks.fractional import FractionalPoolRule
from clarke.kinks.order import (
    OrderRule,
    RunningRule,
    kth_places,
    median_places,
    sort_places,
    topk_places,
)
from clarke.kinks.windows import AdaptivePoolRule, PoolRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.kinks.model import Call, KinkRule


def _windows(call: Call, rank: int) -> tuple[tuple[int, ...], ...]:
    def full(value: Any, default: tuple[int, ...]) -> tuple[int, ...]:
        if value is None or (isinstance(value, (list, tuple)) and len(value) == 0):
            return default
        if isinstance(value, int):
            return (value,) * rank
        return tuple(value) if len(value) == rank else (value[0],) * rank

    kernel = full(call.arg(1, "kernel_size"), (1,) * rank)
    return (
        kernel,
        full(call.arg(2, "stride"), kernel),
        full(call.arg(3, "padding"), (0,) * rank),
        full(call.arg(4, "dilation"), (1,) * rank),
    )


def choices() -> Iterator[tuple[str, KinkRule]]:
    """(operator with overload, rule)."""
    for sign, word in ((1, "max"), (-1, "min")):
        yield word, ReductionRule(sign, indexed=False)
        yield f"{word}.dim", ReductionRule(sign, indexed=True)
        yield f"a{word}", ReductionRule(sign, indexed=False)
        yield f"cum{word}", RunningRule(sign)
        yield f"arg{word}", ArgRule(sign)
    for rank in (2, 3):
        yield f"max_pool{rank}d_with_indices", PoolRule(1, rank, _windows)
        yield f"adaptive_max_pool{rank}d", AdaptivePoolRule(1, rank, _windows)
        yield f"fractional_max_pool{rank}d", FractionalPoolRule(1)
    yield "sort", OrderRule(1, sort_places)
    yield "sort.stable", OrderRule(1, sort_places)
    yield "topk", OrderRule(1, topk_places)
    yield "kthvalue", OrderRule(1, kth_places)
    for word in ("median", "nanmedian"):
        yield word, OrderRule(1, median_places, flat=True)
        yield f"{word}.dim", OrderRule(1, median_places)
