"""Programs that have run before, with what holds of them whatever their values are.

A step whose program is among them is judged by the values of its kinks alone: everything about
wiring and operators is there. A program that is none of them (another branch, another length) is
analysed in full, and then known. Several are kept; of too many, the one used longest ago goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from clarke.capture import DeclaredFunction, input_slots, structure_of
from clarke.fast.graph import Graph, build_graph, trusted_externals
from clarke.fast.layers import RELU
from clarke.kinks import KinkRule, OpKind
from clarke.steering.adding import suspects
from clarke.steering.memory import only_by_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clarke.capture import OpRecord, Reached, Retraced, Structure, Trace
    from clarke.decide import Decision
    from clarke.kinks import Known, Registry
    from clarke.steering.adding import Suspect

KEPT: Final = 32  # programs
_EAGER: Final = 8  # unknown programs in a row that are all taken in


@dataclass(eq=False)
class Plan:
    """What holds of a program for certain variables, whatever its values are.

    Attributes:
        graph: Who made what.
        looked: Positions of the operations at which values or arguments have to be looked at.
        relus: Of these, the ReLUs of which signs are kept.
        typed: Of these, those that are smooth with the arguments that they had, of any value.
        ruled: Of these, those that have a rule whatever their values are, and nothing else.
        suspects: Sums whose terms may be added up one by one in a narrow type.
        counted: Where nothing touched mattered the last time: the counts of its operations.
        smooth: The decision then.
    """

    graph: Graph
    looked: tuple[int, ...]
    relus: frozenset[int]
    typed: tuple[int, ...]
    ruled: Mapping[int, Known]
    suspects: tuple[Suspect, ...] = ()
    counted: tuple[tuple[object, ...], ...] = ()
    smooth: Decision | None = None


@dataclass(frozen=True, eq=False)
class Familiar:
    """A run of a program that is known.

    Attributes:
        retraced: The run.
        plan: What holds of the program.
    """

    retraced: Retraced
    plan: Plan


@dataclass(eq=False)
class _Known:
    structure: Structure
    plans: dict[tuple[int, ...], Plan] = field(default_factory=dict)
    used: int = 0


class Repertoire:
    """The programs of one audit.

    Args:
        registry: The rules.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._revision = registry.revision
        self._known: dict[tuple[int, int], list[_Known]] = {}
        self._count = 0
        self._time = 0
        self._missed = 0  # unknown programs in a row
        self._recognised = False  # the last one that was looked for was known

    def find(self, reached: Reached) -> Iterator[tuple[Retraced, dict[tuple[int, ...], Plan]]]:
        """The known programs that this may be, with the plans for them, until one is taken."""
        if self._revision != self._registry.revision:
            self._known, self._count = {}, 0
            self._revision = self._registry.revision
        self._time += 1
        self._recognised = False
        like = self._known.get(_key(reached), ())
        # The last one that came first: a first step often stands alone.
        for known in sorted(like, key=attrgetter("used"), reverse=True):
            retraced = known.structure.retrace(reached)
            if retraced is not None:
                missed, self._missed, self._recognised = self._missed, 0, True
                known.used = self._time
                yield retraced, known.plans
                self._missed, self._recognised = missed, False  # it was not taken

    def learn(self, trace: Trace, reached: Reached) -> None:
        """Take in a program that `find` did not know, unless every step brings another one."""
        if self._recognised:
            return  # but of no use: there is no plan for it
        self._missed += 1
        if self._missed > _EAGER and self._missed & (self._missed - 1):
            return
        structure = None
        if trusted_externals(trace):
            steps = only_by_steps(trace, self._registry.keeps_value)
            structure = structure_of(trace, reached, steps)
        if structure is None:
            return
        if self._count == KEPT:
            self._drop()
        self._known.setdefault(_key(reached), []).append(_Known(structure, used=self._time))
        self._count += 1

    def _drop(self) -> None:
        key, oldest = min(
            ((k, one) for k, some in self._known.items() for one in some), key=lambda f: f[1].used
        )
        self._known[key].remove(oldest)
        if not self._known[key]:
            del self._known[key]
        self._count -= 1

    def plan(
        self,
        structure: Structure,
        plans: dict[tuple[int, ...], Plan],
        variables: Sequence[int],
    ) -> Plan:
        """What holds of a program for these variables."""
        key = tuple(variables)
        if key not in plans:
            plans[key] = self._plan(structure, key)
        return plans[key]

    def _plan(self, structure: Structure, variables: tuple[int, ...]) -> Plan:
        graph = build_graph(structure.trace, variables)
        looked, relus, typed = [], [], []
        ruled: dict[int, Known] = {}
        for position, op in enumerate(structure.trace.ops):
            spoilt = op.hidden_write or op.resaved or isinstance(op.func, DeclaredFunction)
            known = self._registry.known(op.func)
            if not spoilt and (
                not (op.differentiated or op.reads_stopped)
                or (known.kind is OpKind.ANALYTIC and known.rule is None and known.lowering is None)
            ):
                continue  # locally constant, or smooth wherever it is defined
            looked.append(position)
            bare = known.rule is None and known.lowering is None
            if spoilt:
                continue
            if bare and known.kind is OpKind.DEPENDS and position not in structure.holding:
                if self._registry.judge(op, structure.trace).kind is OpKind.ANALYTIC:
                    typed.append(position)
            elif position in structure.signed and op.short_name in RELU and op.differentiated:
                relus.append(position)
            if _is_ruled(known) and not _is_complex(op, structure.trace):
                ruled[position] = known
        sums = suspects(structure.trace)
        return Plan(graph, tuple(looked), frozenset(relus), tuple(typed), ruled, sums)


def _is_ruled(known: Known) -> bool:
    """Whether an operation has a rule, for all real arguments, and is never what others are."""
    return (
        known.rule is not None
        and known.kind is OpKind.RULED
        and known.lowering is None
        and type(known.rule).speaks_for is KinkRule.speaks_for
    )


def _is_complex(op: OpRecord, trace: Trace) -> bool:
    return any(trace.slot_dtypes[slot].is_complex for slot in input_slots(op))


def _key(reached: Reached) -> tuple[int, int]:
    return len(reached.nodes), id(reached.nodes[-1].location)
