"""Which rule speaks for which operator overload. Refuses duplicates; the unknown stays unknown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from clarke.errors import RegistrationError
from clarke.kinks.smooth import OpClass, classify
from clarke.kinks.table import rule_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.kinks.model import KinkRule


class OpKind(Enum):
    """What clarke knows of an operation."""

    RULED = "has pieces, steps or singular points; a rule finds them"
    ANALYTIC = "analytic in its floating point inputs"
    RANDOM = "random: its recorded value is a constant"
    UNKNOWN = "not known to clarke"


def overload_name(func: Any) -> str:
    """The dispatcher's name of an overload: ``aten::relu.default``."""
    schema = func._schema
    return f"{schema.name}.{schema.overload_name or 'default'}"


@dataclass(frozen=True)
class Known:
    """An operation's kind and, where it has one, its rule."""

    kind: OpKind
    rule: KinkRule | None = None


class Registry:
    """Rules by operator overload."""

    def __init__(self) -> None:
        self._rules: dict[str, KinkRule] = {}
        self._known: dict[Any, Known] = {}

    def add(self, name: str, rule: KinkRule) -> None:
        """Register a rule under a dispatcher name.

        Raises:
            RegistrationError: The overload has a rule already, or is listed as analytic.
        """
        if name in self._rules:
            raise RegistrationError(f"{name} has a rule already; remove one of the two.")
        if classify(name) in (OpClass.ANALYTIC, OpClass.STRUCTURAL, OpClass.CONSTANT):
            raise RegistrationError(f"{name} is listed as analytic; it cannot have kinks as well.")
        self._rules[name] = rule
        self._known.clear()

    def names(self) -> tuple[str, ...]:
        """All names with a rule, sorted."""
        return tuple(sorted(self._rules))

    def known(self, func: Any) -> Known:
        """What is known of an overload."""
        found = self._known.get(func)
        if found is None:
            found = self._known[func] = self._look_up(overload_name(func))
        return found

    def _look_up(self, name: str) -> Known:
        if name in self._rules:
            return Known(OpKind.RULED, self._rules[name])
        match classify(name):
            case OpClass.ANALYTIC | OpClass.STRUCTURAL | OpClass.CONSTANT:
                return Known(OpKind.ANALYTIC)
            case OpClass.RANDOM:
                return Known(OpKind.RANDOM)
            case _:
                return Known(OpKind.UNKNOWN)

    def keeps(self, func: Any) -> bool:
        """Whether a recorder must keep the values that this operation reads."""
        return self.known(func).kind in (OpKind.RULED, OpKind.RANDOM)


@lru_cache(maxsize=1)
def default_registry() -> Registry:
    """The registry of PyTorch's own operations, to which `register_kink` adds."""
    registry = Registry()
    for name, rule in rule_table():
        registry.add(name, rule)
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
        default_registry().add(overload_name(overload), rule)
        return rule

    return add
