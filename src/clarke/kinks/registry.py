"""Which rule speaks for which operator overload. Refuses duplicates; the unknown stays unknown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Drawn, Keep, OpRecord, Ref, Trace, overload_of
from clarke.errors import RegistrationError
from clarke.kinks.listed import in_place
from clarke.kinks.lowering import Lowering, lower
from clarke.kinks.overloads import functional_form
from clarke.kinks.rewire import rewired
from clarke.kinks.smooth import CONDITIONAL, OpClass, bind, classify, has_cut
from clarke.kinks.table import complex_table, lowering_table, rule_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from clarke.capture import DeclaredFunction
    from clarke.kinks.model import KinkRule


class OpKind(Enum):
    """What clarke knows of an operation."""

    RULED = "has pieces, steps or singular points; a rule finds them"
    ANALYTIC = "analytic in its floating point inputs"
    RANDOM = "random: its recorded value is a constant"
    DEPENDS = "depends on the arguments of the call"
    UNKNOWN = "not known to clarke"


def _kind(known: OpClass | None) -> OpKind:
    match known:
        case OpClass.ANALYTIC | OpClass.STRUCTURAL | OpClass.CONSTANT:
            return OpKind.ANALYTIC
        case OpClass.RANDOM:
            return OpKind.RANDOM
        case _:
            return OpKind.UNKNOWN


@dataclass(frozen=True)
class Known:
    """An operation's kind and, where it has them, its rule and how it is written with others."""

    kind: OpKind
    rule: KinkRule | None = None
    lowering: Lowering | None = None


class Registry:
    """Rules by operator overload.

    Attributes:
        revision: How often something was added.
    """

    def __init__(self) -> None:
        self._rules: dict[str, KinkRule] = {}
        self._complex_rules: dict[str, KinkRule] = {}
        self._lowerings: dict[str, Lowering] = {}
        # By identity: an overload's hash is computed in Python, every time.
        self._known: dict[int, tuple[Any, Known]] = {}
        self.revision = 0
        self._functions: dict[type, DeclaredFunction] = {}
        self._surrogates: set[type] = set()

    def is_surrogate(self, function: object) -> bool:
        """Whether the derivative of a custom Function is meant to be another than the true one."""
        drawn = getattr(function, "drawn", None)  # by torch.compile, which tells no name
        if isinstance(drawn, Drawn):
            return any(drawn.is_of(s) for s in self._surrogates)
        return function in self._surrogates

    def declared(self) -> tuple[Collection[type], Collection[type]]:
        """The custom Functions with pieces, and those with a derivative of their own."""
        return self._functions.keys(), self._surrogates

    def add_surrogate(self, function: type) -> None:
        """Remember a custom Function whose derivative is meant to be another than the true one.

        Raises:
            RegistrationError: It has been declared already.
        """
        if function in self._functions or function in self._surrogates:
            raise RegistrationError(
                f"{function.__name__} has been declared already; remove one of the two."
            )
        self._surrogates.add(function)

    @property
    def functions(self) -> Mapping[type, DeclaredFunction]:
        """The custom Functions whose pieces were declared, by class."""
        return MappingProxyType(self._functions)

    def add_function(self, declared: DeclaredFunction, rule: KinkRule) -> None:
        """Register the declared pieces of a custom Function.

        Raises:
            RegistrationError: It has been declared already.
        """
        if declared.function in self._functions or declared.function in self._surrogates:
            raise RegistrationError(
                f"{declared.function.__name__} has been declared already; remove one of the two."
            )
        self.add(overload_of(declared), rule)
        self._functions[declared.function] = declared
        self.revision += 1

    def add(self, name: str, rule: KinkRule) -> None:
        """Register a rule under a dispatcher name.

        Raises:
            RegistrationError: The overload has a rule already, or is listed as analytic.
        """
        if name in self._rules:
            raise RegistrationError(f"{name} has a rule already; remove one of the two.")
        smooth = classify(name) in (OpClass.ANALYTIC, OpClass.STRUCTURAL, OpClass.CONSTANT)
        if smooth and name not in CONDITIONAL:
            raise RegistrationError(f"{name} is listed as analytic; it cannot have kinks as well.")
        self._rules[name] = rule
        self._changed()

    def _changed(self) -> None:
        self._known.clear()
        self.revision += 1

    def add_complex(self, name: str, rule: KinkRule) -> None:
        """Register the rule that speaks where an argument is complex.

        Without one, an operation that has a rule is unknown there.

        Raises:
            RegistrationError: The overload has no rule for real arguments, or one for complex ones.
        """
        if name not in self._rules or name in self._complex_rules:
            raise RegistrationError(f"{name} has no rule of its own, or two for complex numbers.")
        self._complex_rules[name] = rule
        self._changed()

    def add_lowering(self, name: str, lowering: Lowering) -> None:
        """Register how an operation is written with simpler ones.

        Raises:
            RegistrationError: The overload has a lowering already.
        """
        if name in self._lowerings:
            raise RegistrationError(f"{name} has a lowering already; remove one of the two.")
        self._lowerings[name] = lowering
        self._changed()

    def names(self) -> tuple[str, ...]:
        """All names with a rule, sorted."""
        return tuple(sorted({*self._rules, *self._lowerings}))

    def known(self, func: Any) -> Known:
        """What is known of an overload."""
        entry = self._known.get(id(func))
        if entry is None:
            name = overload_of(func)
            found = self._by_functional(func, name) or self._look_up(name)
            if found.lowering is None:
                found = replace(found, lowering=self._lowerings.get(name))
            entry = self._known[id(func)] = (func, found)
        return entry[1]

    def repeatable(self, func: Any) -> bool:
        """Whether an overload returns the same when it runs again: it draws nothing."""
        return self.known(func).kind is not OpKind.RANDOM

    def keeps_value(self, func: Any, dtype: torch.dtype) -> bool:
        """Whether a result of this type keeps its value beside the point, off the ties.

        Whole numbers and truth values do, but not those that are drawn.
        """
        known = self.known(func)
        if known.kind in (OpKind.UNKNOWN, OpKind.RANDOM):
            return False
        discrete = not (dtype.is_floating_point or dtype.is_complex)
        return discrete or (known.rule is not None and known.rule.is_level())

    def _by_functional(self, func: Any, name: str) -> Known | None:
        """What is known of an in-place operation by its functional form alone."""
        form = functional_form(func)
        if form is None or name in self._rules:
            return None
        lowering = None if name in self._lowerings else self._lowerings.get(form)
        written = None if lowering is None else in_place(lowering)
        if form in self._rules:
            return Known(OpKind.RULED, self._rules[form], written)
        found = self._look_up(name)
        if found.kind is OpKind.UNKNOWN and form not in CONDITIONAL:
            found = self._look_up(form)
        return replace(found, lowering=written)

    def _look_up(self, name: str) -> Known:
        if name in self._rules:
            return Known(OpKind.RULED, self._rules[name])
        known = classify(name)
        if name in CONDITIONAL or has_cut(name):
            return Known(OpKind.DEPENDS)
        return Known(_kind(known))

    def judge(self, op: OpRecord, trace: Trace) -> Known:
        """What is known of one executed operation, its arguments considered."""
        known = self.known(op.func)
        speaks = known.rule is not None and known.rule.speaks_for(op)
        if known.rule is not None and not (speaks or known.rule.keep is Keep.DISCRETE):
            # Rules that speak of complex numbers as well do so themselves.
            rule = self._complex_rules.get(overload_of(op.func)) if _reads_complex(op) else None
            kind = OpKind.UNKNOWN if rule is None else OpKind.RULED
            return Known(kind, rule, known.lowering)
        if speaks or (known.kind is not OpKind.DEPENDS and known.rule is None):
            return known

        def actual(value: Any, place: int | tuple[int, int] | None) -> Any:
            if isinstance(value, Ref):
                kept = op.kept.get(place) if isinstance(place, int) else None
                kept = op.kept_lists.get(place) if isinstance(place, tuple) else kept
                if kept is not None:
                    return kept
                # Not kept, since only its type counts.
                return torch.empty(0, dtype=trace.slot_dtypes.get(value.slot))
            if isinstance(value, (list, tuple)) and isinstance(place, int):
                return type(value)(actual(v, (place, i)) for i, v in enumerate(value))
            return value

        args = tuple(actual(a, i) for i, a in enumerate(op.args))
        kwargs = {k: op.kept_named.get(k, actual(v, None)) for k, v in op.kwargs.items()}
        return Known(_kind(classify(overload_of(op.func), bind(op.func, args, kwargs))))

    def lowered(self, trace: Trace) -> Trace:
        """The trace with every operation that has a lowering written as its parts."""
        trace = rewired(trace)
        if not self._lowerings or not any(self._lowering(op.func) for op in trace.ops):
            return trace
        ops: list[OpRecord] = []
        dtypes = dict(trace.slot_dtypes)
        first = min([0, *dtypes]) - 1
        for op in trace.ops:
            parts, more = ((op,), {}) if op.hidden_write else lower(op, self._lowering, first)
            ops += parts
            dtypes.update(more)
            first = min([first, *more]) - 1
        return replace(trace, ops=tuple(ops), slot_dtypes=MappingProxyType(dtypes))

    def _lowering(self, func: Any) -> Lowering | None:
        return self.known(func).lowering

    def keeps(self, func: Any) -> Keep:
        """What a recorder must keep of the values of this operation."""
        known = self.known(func)
        keep = None if known.rule is None else known.rule.keep
        if keep is not None and (known.lowering is None or keep is Keep.DISCRETE):
            return keep
        # Where even the worst case is known, the condition looks at types only.
        values_count = known.kind is OpKind.DEPENDS and classify(overload_of(func)) is None
        by_kind = known.kind in (OpKind.RULED, OpKind.RANDOM) or values_count
        return Keep.VALUES if by_kind or known.lowering is not None else Keep.NOTHING


def _reads_complex(op: OpRecord) -> bool:
    return op.signs is None and any(v.is_complex() for v in op.kept.values())


@lru_cache(maxsize=1)
def default_registry() -> Registry:
    """The registry of PyTorch's own operations, to which `register_kink` adds."""
    registry = Registry()
    for name, rule in rule_table():
        registry.add(name, rule)
    for name, rule in complex_table():
        registry.add_complex(name, rule)
    for name, lowering in lowering_table():
        registry.add_lowering(name, lowering)
    return registry


def register_kink(overload: Any) -> Callable[[KinkRule], KinkRule]:
    """Register a rule for a custom operator.

    ``clarke.register_kink(torch.ops.mylib.op.default)(rule)``, with a `KinkRule` such as
    `RegionRule`.

    Raises:
        RegistrationError: Not an operator overload, or one that has a rule already.
    """
    if not isinstance(overload, torch._ops.OpOverload):
        raise RegistrationError(
            f"register_kink takes an operator overload such as torch.ops.mylib.op.default, "
            f"not {overload!r}."
        )

    def add(rule: KinkRule) -> KinkRule:
        default_registry().add(overload_of(overload), rule)
        return rule

    return add
