"""The tables of this folder, asked: what is the operation that a name and arguments call?"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.kinks.smooth.analytic import ANALYTIC
from clarke.kinks.smooth.conditions import CONDITIONAL
from clarke.kinks.smooth.constants import CONSTANT, DISCRETE, RANDOM
from clarke.kinks.smooth.model import OpClass, aten
from clarke.kinks.smooth.singular import LEFT_OUT, SINGULAR
from clarke.kinks.smooth.structural import STRUCTURAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# Names above that torch 2.6, or 2.14, does not have.
OTHER_VERSIONS: Final = aten(
    """
    _foreach_clone.default _fused_rms_norm.default rand_like.generator randint_like.Tensor
    randint_like.Tensor_generator randint_like.generator randint_like.low_generator_dtype
    randn_like.generator
    """
)

# Of these, complex arguments cross branch cuts, where the value jumps.
_CUTS: Final = frozenset(
    {"_linalg_svd", "acos", "acosh", "asin", "asinh", "atan", "atanh", "log", "log10", "log1p"}
    | {"log2", "logaddexp", "logaddexp2", "logcumsumexp", "logsumexp", "pow", "rsqrt", "sqrt"}
)

_SETS: Final = MappingProxyType(
    {
        OpClass.ANALYTIC: ANALYTIC,
        OpClass.STRUCTURAL: STRUCTURAL,
        OpClass.CONSTANT: CONSTANT,
        OpClass.RANDOM: RANDOM,
        OpClass.SINGULAR: frozenset(SINGULAR),
        OpClass.DISCRETE: DISCRETE,
    }
)

_CLASS_OF: Final = MappingProxyType({n: c for c, names in _SETS.items() for n in names})


def classify(name: str, arguments: Mapping[str, object] | None = None) -> OpClass | None:
    """What the operation is; None: not known, and never to be taken for smooth.

    Args:
        name: The dispatcher's name of an overload, such as ``"aten::addmm.default"``.
        arguments: The arguments of one call, from `bind`. With them the answer is about this call:
            some operations are known only so (`CONDITIONAL`), none is known for sparse tensors, and
            functions with a branch cut are not known for complex numbers. Tensors may be read, so
            call it outside of any dispatch mode.
    """
    known = _CLASS_OF.get(name)
    if arguments is None:
        return known
    parts = list(_parts(arguments.values()))
    if any(isinstance(p, torch.Tensor) and p.layout is not torch.strided for p in parts):
        return None
    if has_cut(name) and any(map(_is_complex, parts)):
        return None
    condition = CONDITIONAL.get(name)
    if condition is None:
        return known
    return condition.op_class if condition.holds(arguments) else condition.otherwise


def has_cut(name: str) -> bool:
    """Whether the operation jumps along a line of the complex plane."""
    return _stem(name) in _CUTS


def why_not(name: str) -> str | None:
    """Why `classify` may not know an operation, in words; None where there is nothing to say."""
    condition = CONDITIONAL.get(name)
    return LEFT_OUT.get(name) if condition is None else condition.because


def bind(func: Any, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
    """The arguments of a call by their names in the overload's schema, defaults filled in."""
    bound: dict[str, object] = {}
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def _stem(name: str) -> str:
    """The operator without namespace, overload, ``_foreach_`` and the in-place underscore."""
    operator = name.rpartition("::")[2].partition(".")[0]
    return operator.removeprefix("_foreach_").removesuffix("_")


def _parts(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _parts(value)
        else:
            yield value


def _is_complex(value: object) -> bool:
    return isinstance(value, complex) or (isinstance(value, torch.Tensor) and value.is_complex())
