"""FSDP2: one verdict of all processes on parameters of which each holds a part.

A program computes with whole parameters, which are gathered for the time of their use. Each process
differentiates its own program by them; the mean of what comes is cut into parts, one for each
process, and that is the gradient that the optimizer takes. Here every process tells a checksum of
the gradient that it put in and one of the part that it was given. Where programs are judged, the
parts of parameters and gradients travel with them: the whole is put together by rank 0 alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.letters import Sums, bundle, judged, packed, remember, told, unbundled
from clarke.audit.meeting import Meeting, Part
from clarke.audit.watch import LeafWatch
from clarke.decide import Decision
from clarke.errors import ClarkeError
from clarke.proof import pack, unpack
from clarke.torch_sharded import divisor_of, position_of, reduces_now, reduction_of
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.audit.groups import Group
    from clarke.audit.judge import Case
    from clarke.audit.letters import Job
    from clarke.audit.post import Post
    from clarke.audit.ranks import Ranks
    from clarke.torch_sharded import Shard


class SumsWatch(LeafWatch):
    """A watch that takes checksums of gradients, and keeps them only where they are needed.

    Args:
        leaves: Whole parameters.
        is_beside: As for `LeafWatch`.
        numbers: Of the leaves among all parameters.
        sums: Where checksums add up.
        keeps: Whether gradients are kept.
        handed: Ends with the watch.
    """

    def __init__(
        self,
        leaves: Sequence[torch.Tensor],
        is_beside: Callable[[], bool],
        numbers: Sequence[int],
        sums: Sums,
        *,
        keeps: bool,
        handed: Handed,
    ) -> None:
        super().__init__(leaves, is_beside)
        self._numbers = tuple(numbers)
        self._sums = sums
        self.keeps = keeps
        self._handed = handed

    def _take(self, position: int, gradient: torch.Tensor) -> None:
        self._sums.add(self._numbers[position], gradient)
        if self.keeps:
            super()._take(position, gradient)

    def start(self) -> None:
        """As of `LeafWatch`."""
        super().start()
        self._handed.start()

    def stop(self) -> None:
        """As of `LeafWatch`."""
        super().stop()
        self._handed.stop()


class Handed:
    """What a user's hooks get of some parameters, before an optimizer in them makes a step.

    Args:
        shards: The parameters of which hooks get the gradient, put together.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._parts = {id(s.own): s.part().clone() for s in shards}
        self._gradients: dict[int, torch.Tensor] = {}
        self._shards = tuple(shards)
        self._handles: list[Any] = []

    def start(self) -> None:
        """Look at what comes, before the user's hooks do."""
        for shard in self._shards:
            self._handles.append(shard.before_hooks(partial(self._take, shard)))

    def _take(self, shard: Shard, _own: torch.Tensor) -> None:
        with torch.no_grad():
            if (gradient := shard.gradient()) is not None:
                self._gradients[id(shard.own)] = gradient.detach().clone()

    def stop(self) -> None:
        """Take no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def gradient(self, shard: Shard) -> torch.Tensor | None:
        """What arrived at a parameter, whatever has become of it."""
        found = self._gradients.get(id(shard.own))
        return shard.gradient() if found is None else found

    def part(self, shard: Shard) -> torch.Tensor:
        """The values of a parameter's part before the call."""
        found = self._parts.get(id(shard.own))
        return shard.part() if found is None else found


class ShardBackup:
    """What gradients of some parameters held, whole and in parts, to put it back."""

    def __init__(self, shards: Sequence[Shard], *, values: bool) -> None:
        self._before = [(s, s.remembered(values=values)) for s in shards]
        self._versions = [s.part()._version for s in shards]

    def is_late(self) -> bool:
        """As of `GradBackup`."""
        before = zip(self._before, self._versions, strict=True)
        return any(
            s.is_handed_on and (s.gradient() is None or s.part()._version != version)
            for (s, _), version in before
        )

    def restore(self) -> None:
        """Put the remembered gradients back."""
        with torch.no_grad():
            for shard, before in self._before:
                shard.restore(before)


class ShardedMeeting(Meeting):
    """One backward call of a model under `fully_shard`; see `Meeting`."""

    def __init__(
        self,
        ranks: Ranks,
        groups: Sequence[Any],
        shards: Sequence[Shard],
        *,
        hooks: list[str],
        names: str,
    ) -> None:
        later = not reduces_now(groups[0])
        self._groups = groups
        # Those that are judged come first, so that their numbers are their places in a gradient.
        self._shards = sorted(shards, key=lambda s: not s.own.requires_grad)
        judged_ = [s for s in self._shards if s.own.requires_grad]
        super().__init__(
            ranks, tuple(s.own for s in judged_), later=later, hooks=hooks, names=names
        )
        self._judged = judged_
        self._by_own = {id(s.own): s for s in self._shards}
        self._numbers = {id(s.leaf): i for i, s in enumerate(self._shards) if s.leaf is not None}
        self._own_sums = Sums(ranks.weights())
        self._given_before = (0.0, 0.0)

    @property
    def is_handed_on(self) -> bool:
        """Whether hooks of the user's get gradients while autograd runs."""
        return any(s.is_handed_on for s in self._judged)

    # ------------------------------------------------------------ where gradients are

    def held_by(self, leaf: torch.Tensor) -> torch.Tensor | None:
        """Where the gradient of a parameter adds up: whole until it is put together."""
        shard = self._by_own[id(leaf)]
        waiting, given = shard.waiting(), shard.gradient()
        if waiting is None or given is None:
            return given if waiting is None else waiting
        return waiting.clone()  # in two places: as something that nobody has seen

    def those_of(self, case: Case) -> tuple[torch.Tensor, ...]:
        """As of `Meeting`."""
        del case
        return self.leaves

    def watch(self, case: Case, early: Decision | None, is_beside: Callable[[], bool]) -> LeafWatch:
        """As of `Meeting`; whole gradients are held only where they may have to be sent."""
        smooth = early is not None and early.verdict is Verdict.SMOOTH
        numbers = [self._numbers[id(x)] for x in case.leaves]
        keeps = self.later or self._added or not smooth
        return SumsWatch(
            case.leaves, is_beside, numbers, self._own_sums, keeps=keeps, handed=self._handed
        )

    def backup(self, leaves: Sequence[torch.Tensor], *, values: bool) -> ShardBackup:
        """As of `Meeting`."""
        del leaves
        return ShardBackup(self._judged, values=values)

    def mine(
        self, case: Case, watch: LeafWatch, early: Decision | None, group: Group | None
    ) -> Part:
        """As of `Meeting`."""
        local = watch.gradients() if isinstance(watch, SumsWatch) and watch.keeps else ()
        finite = math.isfinite(self._own_sums.value()[1])
        return Part(case, local, early, group, finite)

    # ------------------------------------------------------------ a call

    def begin(self) -> None:
        """As of `Meeting`."""
        waiting, given = Sums(self._ranks.weights()), Sums(self._ranks.weights())
        for number, shard in enumerate(self._judged):
            if (whole := shard.waiting()) is not None:
                waiting.add(number, whole)
            if (part := shard.gradient()) is not None:
                self._add_part(given, number, part)
        self._before, self._given_before = waiting.value(), given.value()
        self._handed = Handed([s for s in self._judged if s.is_handed_on])
        self._added = any(s.waiting() is not None or s.gradient() is not None for s in self._judged)

    def _add_part(self, sums: Sums, number: int, part: torch.Tensor) -> None:
        for start, row in self._shards[number].pieces(part):
            sums.add(number, row, start)

    def _is_waiting(self, part: Part) -> bool:
        del part
        return True  # FSDP2 does nothing else with it

    def averaged(self) -> tuple[torch.Tensor, ...]:
        """Of this process's part."""
        return tuple(
            torch.zeros_like(s.part()) if (g := self._handed.gradient(s)) is None else g.clone()
            for s in self._judged
        )

    def divisor(self, post: Post) -> float:
        """As of `Meeting`."""
        del post
        return divisor_of(self._groups[0])

    def position(self) -> str:
        """As of `Meeting`."""
        return position_of(self._groups[0])

    def _eps(self) -> float:
        types = {t for s in self._judged for t in (s.own.dtype, *reduction_of(s))}
        return max((torch.finfo(t).eps for t in types), default=0.0)

    def _sums(self, part: Part, gradient: Sequence[torch.Tensor]) -> dict[str, Any]:
        del part
        of = divisor_of(self._groups[0])
        given = Sums(self._ranks.weights())
        for number, piece in enumerate(gradient):
            self._add_part(given, number, piece)
        sums = zip(self._own_sums.value(), self._before, self._given_before, strict=True)
        return {
            "mine": [a + b + of * c for a, b, c in sums],
            "mean": list(given.value()),
            "spread": True,
            "of": of,
        }

    def _letter(self, part: Part, gradient: Sequence[torch.Tensor]) -> bytes:
        own = self._packed(part)
        units = [*(part.group.programs if part.group else ()), own]
        remember(part, own)
        parts = {f"part.{i}": self._handed.part(s) for i, s in enumerate(self._shards)}
        parts.update((f"gradient.{i}", g) for i, g in enumerate(gradient))
        return bundle([*units, pack({}, parts)])

    def _packed(self, part: Part) -> bytes:
        return packed(part, self._numbered(part), self._numbers)

    def _decided(
        self, letters: Sequence[bytes], job: Job, gradient: tuple[torch.Tensor, ...]
    ) -> tuple[Decision, Mapping[int, torch.Tensor]]:
        try:
            units = [unbundled(letter) for letter in letters]
            parts = [unpack(u[-1])[1] for u in units]
            wholes = {
                i: s.joined([p[f"part.{i}"] for p in parts])
                .reshape(s.shape)
                .requires_grad_(s.own.requires_grad)
                for i, s in enumerate(self._shards)
            }
            whole = tuple(
                s.joined([p[f"gradient.{i}"] for p in parts]).reshape(s.shape)
                for i, s in enumerate(self._judged)
            )
        except (ClarkeError, RuntimeError, KeyError, IndexError) as error:
            why = f"The parts of the processes do not make a whole: {error}"
            return Decision(Verdict.UNDECIDED, why), {}
        del gradient
        return judged([bundle(u[:-1]) for u in units], job, whole, wholes)

    def _answered(self, raw: bytes, gradient: tuple[torch.Tensor, ...]) -> Decision:
        decision = told(raw, gradient)
        if decision.element is None:
            return decision
        element = tuple(
            e if e is g else s.cut(e)
            for e, g, s in zip(decision.element, gradient, self._judged, strict=True)
        )
        return replace(decision, element=element)

    def replace(self, element: Sequence[torch.Tensor], group: Group | None) -> None:
        """As of `Meeting`."""
        if group is not None:
            group.unsent = "an earlier part of it was repaired"
        with torch.no_grad():
            for shard, e in zip(self._judged, element, strict=True):
                shard.put(e)
