"""Decide the paper's theorems, and the bias shift beyond them, from the structure of a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clarke.theorems.diagnose import Diagnosis, lambda_fix, settled, unsettled
from clarke.theorems.explanation import Blame, Explanation, Hypothesis, LayerFacts
from clarke.theorems.facts import facts_of
from clarke.theorems.model import Bias, Condition, Strength, Theorem
from clarke.theorems.peel import Peeling, peel
from clarke.theorems.structure import Context, Fault, KinkSite, Structure
from clarke.theorems.text import place
from clarke.theorems.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from clarke.capture import Trace
    from clarke.kinks import Registry

_ONE, _FOUR, _FIVE = Theorem.ONE, Theorem.FOUR, Theorem.FIVE
_SIX, _EIGHT, _SHIFT = Theorem.SIX, Theorem.EIGHT, Theorem.BIAS_SHIFT
_EVERY = tuple(Theorem)
_NEEDED_BY: tuple[tuple[Condition, tuple[Theorem, ...]], ...] = (
    (Condition.ANALYTIC, _EVERY),
    (Condition.FIXED, _EVERY),
    (Condition.BIASES, (_ONE, _FOUR, _SIX, _SHIFT)),
    (Condition.SINGLE, (_ONE,)),
    (Condition.DISTINCT, (_ONE, _FOUR)),
    (Condition.LAMBDA, (_FOUR, _SIX)),
    (Condition.POOLS, (_ONE, _FOUR, _FIVE, _SIX, _SHIFT)),
    (Condition.OWN, (_ONE, _FOUR, _FIVE, _SIX, _EIGHT)),
    (Condition.FULL, (_FIVE,)),
)


def explain_trace(
    trace: Trace,
    registry: Registry,
    variables: Sequence[int],
    names: Mapping[int, str] | None = None,
    context: Context | None = None,
) -> Explanation:
    """Which theorem covers a trace, for all values of its inputs and variables.

    Args:
        trace: What ran.
        registry: The rules.
        variables: Slots of the leaves that are differentiated with respect to.
        names: Names of leaves, by slot.
        context: What is known of constants and inputs; by default that all constants are fixed.
    """
    return explain_structure(walk(trace, registry, variables, names, context))


def explain_structure(structure: Structure) -> Explanation:
    """The same, from the facts."""
    return _Judge(structure).explain()


@dataclass(frozen=True)
class _Finding:
    site: KinkSite
    diagnosis: Diagnosis


class _Judge:
    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.strict = peel(structure)
        loose = self.strict if self.strict.complete else peel(structure, strict=False)
        self.ranked = peel(structure, weights=True) if not self.strict.complete else None
        self.peeling = loose
        self.findings = self._findings(loose)
        self.several = any(len(g.members) > 1 for g in loose.groups)

    def _findings(self, peeling: Peeling) -> tuple[_Finding, ...]:
        found: dict[int, Diagnosis] = {}
        for group in peeling.groups:
            for member in group.members:
                new = settled(self.structure, group, member)
                old = found.get(member.site)
                # Several biases for parts of one layer: the weakest description is true of all.
                if old is None or _WEAKNESS.index(new.bias) > _WEAKNESS.index(old.bias):
                    found[member.site] = new
        for number in peeling.left:
            found[number] = unsettled(self.structure, number, peeling.left)
        return tuple(_Finding(self.structure.sites[n], d) for n, d in sorted(found.items()))

    # ------------------------------------------------------------------ the hypotheses

    def _biases(self) -> list[Blame]:
        return [
            _blame(f.site, f.diagnosis.reason, f.diagnosis.fix)
            for f in self.findings
            if not f.diagnosis.bias.usable
        ]

    def _kind(self, *allowed: Bias) -> list[Blame]:
        return [
            _blame(f.site, f"bias {f.diagnosis.bias.value}")
            for f in self.findings
            if f.diagnosis.bias not in allowed
        ]

    def _lambda(self) -> list[Blame]:
        found = []
        for f in self.findings:
            points = f.site.points
            if points is None:
                found.append(_blame(f.site, "its kinks depend on more than its input"))
            elif not all(p.proper for p in points):
                found.append(_blame(f.site, "AD's slope there is no mixture of the pieces' slopes"))
            elif len({p.upper for p in points}) > 1:
                text = "AD takes lambda " + " and ".join(map(str, points))
                found.append(_blame(f.site, text, lambda_fix(f.site.op)))
        for group in self.peeling.groups:
            if group.single or group.upper is not None:
                continue
            own = [self.structure.sites[m.site] for m in group.members]
            name = self.structure.leaves[group.leaf].name
            if group.signs is None:
                found.append(_blame(own[0], f"`{name}` raises some of its kinks and lowers others"))
            elif len(own) > 1 and all(len({p.upper for p in s.points or ()}) == 1 for s in own):
                names = ", ".join(f"{s.op.shown} at {place(s.op.location)}" for s in own[:4])
                found.append(_blame(own[0], f"`{name}` is shared by kinks that differ: {names}"))
        return found

    def _full(self) -> list[Blame]:
        text = "its pre-activation is not that of a fully connected layer with its own weights"
        return [_blame(f.site, text) for f in self.findings if f.site.state.product is None]

    def _hypotheses(self) -> tuple[Hypothesis, ...]:
        s = self.structure
        blames: dict[Condition, list[Blame]] = {
            Condition.ANALYTIC: _from_faults(s.rough),
            Condition.FIXED: _from_faults(s.moving),
            Condition.BIASES: self._biases(),
            Condition.SINGLE: self._kind(Bias.SINGLE),
            Condition.DISTINCT: self._kind(Bias.SINGLE, Bias.DISTINCT),
            Condition.LAMBDA: self._lambda(),
            Condition.POOLS: _from_faults(s.pools),
            Condition.OWN: _from_faults(s.reused),
            Condition.FULL: self._full(),
        }
        # One bias for several operations is outside of the paper's one layer, one bias.
        return tuple(
            Hypothesis(c, not blames[c], needed, tuple(blames[c])) for c, needed in _NEEDED_BY
        )

    # ------------------------------------------------------------------ the theorem

    def explain(self) -> Explanation:
        hypotheses = self._hypotheses()
        holds = {h.condition: h.holds for h in hypotheses}
        theorem = self._theorem(holds)
        strength = self._strength(theorem)
        return Explanation(
            theorem=theorem,
            strength=strength,
            conclusion=self._conclusion(theorem, strength, hypotheses),
            hypotheses=hypotheses,
            layers=tuple(map(_layer, self.findings)),
            assumptions=self.structure.assumptions if theorem is not None else (),
            structure=facts_of(self.structure, self.peeling),
        )

    def _theorem(self, holds: Mapping[Condition, bool]) -> Theorem | None:
        if not (holds[Condition.ANALYTIC] and holds[Condition.FIXED]):
            return None
        if not self.findings and holds[Condition.POOLS]:
            return Theorem.ANALYTIC
        if holds[Condition.POOLS] and self.strict.complete:
            return self._named(holds)
        if holds[Condition.POOLS] and holds[Condition.OWN] and self._ranked():
            return Theorem.FIVE
        return Theorem.EIGHT if holds[Condition.OWN] and self._layered() else None

    def _named(self, holds: Mapping[Condition, bool]) -> Theorem:
        if holds[Condition.OWN] and not self.several:
            if holds[Condition.SINGLE]:
                return Theorem.ONE
            if holds[Condition.LAMBDA]:
                return Theorem.FOUR if holds[Condition.DISTINCT] else Theorem.SIX
        return Theorem.BIAS_SHIFT

    def _ranked(self) -> bool:
        return self.ranked is not None and self.ranked.complete

    def _layered(self) -> bool:
        """Whether every layer with kinks has variables of its own and kinks that can be told."""
        variables = sum(1 << i for i, leaf in enumerate(self.structure.leaves) if leaf.variable)
        return all(
            f.site.points is not None
            and all(p.proper for p in f.site.points)
            and bool(f.site.state.direct & variables)
            for f in self.findings
        )

    def _strength(self, theorem: Theorem | None) -> Strength | None:
        if theorem is None:
            return None
        if theorem is Theorem.ANALYTIC:
            return Strength.GRADIENT
        shares = {p.upper for f in self.findings for p in f.site.points or ()}
        return Strength.BOULIGAND if shares <= {0.0, 1.0} else Strength.CLARKE

    def _conclusion(
        self,
        theorem: Theorem | None,
        strength: Strength | None,
        hypotheses: Iterable[Hypothesis],
    ) -> str:
        what = "" if strength is None else strength.value
        if theorem is None:
            failed = next(
                (h for h in hypotheses if not h.holds and Theorem.EIGHT in h.needed_by), None
            )
            because = f" ({failed.condition.value}: no)" if failed else ""
            return (
                f"nothing is known for all inputs and parameters{because}; clarke.check judges "
                "single gradients, whatever the structure."
            )
        if theorem.unconditional:
            return (
                "for all inputs of these shapes and all values of the parameters, AD returns "
                f"{what}, with any analytic loss."
            )
        if theorem is Theorem.FIVE and self.ranked is not None:
            names = [self.structure.leaves[g.leaf].name for g in self.ranked.groups if g.weight]
            return (
                f"AD returns {what} wherever the inputs of the layers that touch kinks have full "
                f"column rank (samples as columns; weights {', '.join(names)}); "
                "clarke.check looks at run time."
            )
        if self.strict.complete:
            return (
                f"AD returns {what} wherever the ties of the maxpools pass Algorithm 2; only ties "
                "need a look at run time, and clarke.check takes it."
            )
        return (
            f"AD returns {what} wherever every layer passes Algorithm 1; clarke.check looks "
            "at run time."
        )


_WEAKNESS = tuple(Bias)


def _blame(site: KinkSite, reason: str, fix: str = "") -> Blame:
    return Blame(site.op.shown, site.op.location, reason, fix)


def _from_faults(faults: Iterable[Fault]) -> list[Blame]:
    return [Blame(f.operation, f.location, f.reason) for f in faults]


def _layer(finding: _Finding) -> LayerFacts:
    site, diagnosis = finding.site, finding.diagnosis
    points = site.points or ()
    shares = {p.upper for p in points}
    one = shares.pop() if len(shares) == 1 and all(p.proper for p in points) else None
    return LayerFacts(
        operation=site.op.shown,
        location=site.op.location,
        shape=None if site.state.shape is None else tuple(site.state.shape),
        bias=diagnosis.bias,
        leaf=diagnosis.leaf,
        proxies=", ".join(map(str, points)) or "unknown",
        upper=one,
    )
