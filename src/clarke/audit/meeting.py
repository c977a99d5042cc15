"""One backward call of which every process has a part, and the verdict of all on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.groups import held
from clarke.audit.letters import (
    Job,
    answer,
    bundle,
    checksum,
    dumped,
    forget,
    judged,
    loaded,
    packed,
    planned,
    remember,
    told,
)
from clarke.audit.watch import GradBackup, LeafWatch, are_handed_on
from clarke.capture import all_finite
from clarke.decide import Decision
from clarke.errors import CaptureError, ClarkeError
from clarke.numerics import AVERAGED, POST_BYTES, POST_PATIENCE, POST_SECONDS
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.audit.groups import Group
    from clarke.audit.judge import Case
    from clarke.audit.post import Post
    from clarke.audit.ranks import Ranks
    from clarke.audit.shards import ShardBackup
    from clarke.decide import Settings

_LATER = (
    "Under no_sync (or set_requires_gradient_sync) this gradient is a part of one that is put "
    "together over all processes later, and it stands at kinks: the sum is judged then."
)
_AFTER_ALL = (
    "The backward pass ran under no_sync, and .grad is not what this process has added to it: "
    "no_sync has to hold the forward pass as well, or the gradients are put together at once."
)


@dataclass(frozen=True)
class Part:
    """What one process has of a step.

    Attributes:
        case: Its program.
        local: The gradient that it computed, by leaf of the case.
        early: What the quick judge found, if it was asked.
        group: The calls that this one adds up with.
        finite: Of what was not kept in `local`, no entry is NaN or infinite.
    """

    case: Case
    local: tuple[torch.Tensor, ...]
    early: Decision | None
    group: Group | None
    finite: bool = True

    @property
    def is_smooth(self) -> bool:
        """Whether this call stands at no kink that matters."""
        early = self.early
        if early is None or early.verdict is not Verdict.SMOOTH:
            return False
        return self.finite and all_finite(self.local)

    @property
    def fresh(self) -> bool:
        """Whether it adds up with no other."""
        return self.group is None or not self.group.size

    @property
    def apart(self) -> str:
        """Why what it adds up with is not known."""
        group = self.group
        if group is None:
            return ""
        why = group.broken or group.doubtful or group.unsent
        if not why and len(group.programs) < len(group.parts):
            why = "the program of an earlier call was not kept"
        return why and f"What .grad adds up over calls and processes cannot be judged: {why}."


class Meeting:
    """One backward call of which every process has a part.

    Attributes:
        leaves: The parameters that are judged: all that the processes share.
        later: Nothing is put together yet.
    """

    def __init__(
        self,
        ranks: Ranks,
        leaves: tuple[torch.Tensor, ...],
        *,
        later: bool,
        hooks: list[str],
        names: str,
    ) -> None:
        self.leaves = leaves
        self.later = later
        self._ranks = ranks
        self._hooks = hooks
        self._names = names
        self._numbers = {id(x): i for i, x in enumerate(leaves)}
        self._before = (0.0, 0.0)

    @property
    def is_handed_on(self) -> bool:
        """Whether hooks of the user's get what the processes put together while autograd runs."""
        return are_handed_on(self.leaves)

    # ------------------------------------------------------------ where gradients are

    def held_by(self, leaf: torch.Tensor) -> torch.Tensor | None:
        """Where the gradient of a parameter adds up."""
        return held(leaf)

    def those_of(self, case: Case) -> tuple[torch.Tensor, ...]:
        """Whose gradients a call adds to."""
        return case.leaves if self.later else self.leaves

    def watch(self, case: Case, early: Decision | None, is_beside: Callable[[], bool]) -> LeafWatch:
        """What takes the gradients of this process as they come."""
        del early
        return LeafWatch(case.leaves, is_beside)

    def backup(self, leaves: Sequence[torch.Tensor], *, values: bool) -> GradBackup | ShardBackup:
        """What ``.grad`` holds, to be put back."""
        return GradBackup(leaves, values=values)

    def mine(
        self, case: Case, watch: LeafWatch, early: Decision | None, group: Group | None
    ) -> Part:
        """What this process has of the step."""
        return Part(case, watch.gradients(), early, group)

    # ------------------------------------------------------------ a call

    def begin(self) -> None:
        """Look at what ``.grad`` holds before the call."""
        self._before = self._checksum(list(enumerate(x.grad for x in self.leaves)))

    def part(self, part: Part) -> Decision:
        """What is said of a call whose gradient is put together later, with others."""
        if part.early is None or not part.is_smooth:
            remember(part, self._packed(part))
            return Decision(Verdict.UNDECIDED, _LATER)
        return part.early if self._is_waiting(part) else Decision(Verdict.UNDECIDED, _AFTER_ALL)

    def _is_waiting(self, part: Part) -> bool:
        """Whether ``.grad`` is what this process has added to it."""
        mine = self._checksum(list(zip(self._numbered(part), part.local, strict=True)))
        now = self._checksum(list(enumerate(x.grad for x in self.leaves)))
        size = mine[1] + self._before[1]
        return abs(now[0] - mine[0] - self._before[0]) <= AVERAGED * self._eps() * size

    def _checksum(self, parts: Sequence[tuple[int, torch.Tensor | None]]) -> tuple[float, float]:
        return checksum(parts, self._ranks.weights())

    def _eps(self) -> float:
        return max((torch.finfo(x.dtype).eps for x in self.leaves), default=0.0)

    def averaged(self) -> tuple[torch.Tensor, ...]:
        """The gradient that the optimizer is to take, by leaf."""
        return tuple(
            torch.zeros_like(x, requires_grad=False) if x.grad is None else x.grad.detach().clone()
            for x in self.leaves
        )

    def judge(
        self,
        part: Part,
        gradient: tuple[torch.Tensor, ...],
        settings: Settings,
        seconds: float | None,
    ) -> Decision:
        """The verdict of all processes on `gradient`, the same on each.

        Raises:
            ClarkeError: They do not answer.
        """
        post, name, before = self._ranks.next(self)
        flags = {
            "smooth": part.is_smooth
            and not part.apart
            and not (part.group and part.group.programs),
            "fresh": part.fresh,
            "why": "",
            "apart": part.apart,
            "eps": self._eps(),
            "hooks": self._hooks,
            "leaves": self._names,
            **self._sums(part, gradient),
        }
        try:
            plan = self._plan(post, name, before, flags)
            if plan["why"]:
                forget(part, "an earlier call could not be judged over all processes")
                return Decision(Verdict.UNDECIDED, plan["why"])
            if plan["smooth"] and part.early is not None:
                return _noted(part.early, plan["note"])
            job = Job(post, name, settings, seconds, fresh=plan["fresh"], of=self.divisor(post))
            return _noted(self._all_together(job, part, gradient), plan["note"])
        except ClarkeError as error:
            forget(part, "an earlier call could not be judged over all processes")
            self._ranks.lost = (
                "The processes of this training could not agree on an earlier step, so that clarke "
                f"asks them no more. {error}"
            )
            raise

    def divisor(self, post: Post) -> float:
        """What the sum of all gradients is divided by."""
        return post.world

    def position(self) -> str:
        """Where all processes are; "" to ask those that are known."""
        return ""

    def _sums(self, part: Part, gradient: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Checksums of what this process put in and of what it was given."""
        own = self._checksum(list(zip(self._numbered(part), part.local, strict=True)))
        return {
            "mine": [a + b for a, b in zip(own, self._before, strict=True)],
            "mean": list(self._checksum(list(enumerate(gradient)))),
        }

    def _numbered(self, part: Part) -> list[int]:
        return [self._numbers[id(x)] for x in part.case.leaves]

    def _packed(self, part: Part) -> bytes:
        return packed(part, self._numbered(part))

    def _letter(self, part: Part, gradient: Sequence[torch.Tensor]) -> bytes:
        """All that rank 0 needs of this process."""
        del gradient
        own = self._packed(part)
        units = [*(part.group.programs if part.group else ()), own]
        remember(part, own)
        return bundle(units)

    def _decided(
        self, letters: Sequence[bytes], job: Job, gradient: tuple[torch.Tensor, ...]
    ) -> tuple[Decision, Mapping[int, torch.Tensor]]:
        """The verdict on what all processes sent, and a correct gradient where there is one."""
        return judged(letters, job, gradient)

    def _answered(self, raw: bytes, gradient: tuple[torch.Tensor, ...]) -> Decision:
        """What rank 0 says, for this process."""
        return told(raw, gradient)

    def _plan(self, post: Post, name: str, before: str, flags: dict[str, Any]) -> dict[str, Any]:
        if post.rank:
            post.send(f"{name}/flags/{post.rank}", dumped(flags))
            return loaded(post.receive([f"{name}/plan"], POST_SECONDS)[0])
        others = [f"{name}/flags/{r}" for r in range(1, post.world)]
        try:
            plan = planned([flags, *map(loaded, post.receive(others, POST_SECONDS))])
        except ClarkeError as error:
            post.send(f"{name}/plan", dumped({"why": str(error)}))
            raise
        post.send(f"{name}/plan", dumped(plan))
        # Who told of this step has read all about the one before it.
        post.drop([*others, f"{before}/plan", f"{before}/verdict"])
        return plan

    def _all_together(self, job: Job, part: Part, gradient: tuple[torch.Tensor, ...]) -> Decision:
        post, name = job.post, job.name
        sent = self._letter(part, gradient)
        if len(sent) > POST_BYTES / post.world:
            why = f"What rank {post.rank} recorded takes {len(sent)} bytes, too many to be sent."
            sent = bundle([dumped({"why": why}) + b"\n"])
        patience = POST_SECONDS + (POST_PATIENCE if job.seconds is None else job.seconds)
        if post.rank:
            post.send(f"{name}/program/{post.rank}", sent)
            return self._answered(post.receive([f"{name}/verdict"], patience)[0], gradient)
        others = [f"{name}/program/{r}" for r in range(1, post.world)]
        try:
            raw = [sent, *post.receive(others, POST_SECONDS)]
        except CaptureError as error:
            post.send(f"{name}/verdict", answer(Decision(Verdict.UNDECIDED, str(error)), {}))
            raise
        decision, element = self._decided(raw, job, gradient)
        reply = answer(decision, element)
        post.send(f"{name}/verdict", reply)
        post.drop(others)
        # Rank 0 holds the proof and the kinks of all; what the others do with it, it does too.
        return replace(decision, element=self._answered(reply, gradient).element)

    def replace(self, element: Sequence[torch.Tensor], group: Group | None) -> None:
        """Put a correct gradient in the place of what all processes were given."""
        if group is not None:
            group.unsent = "an earlier part of it was repaired"
        with torch.no_grad():
            for leaf, e in zip(self.leaves, element, strict=True):
                value = e.to(leaf.dtype).reshape(leaf.shape)
                if leaf.grad is None:
                    leaf.grad = value.clone() if bool(value.any()) else None
                else:
                    leaf.grad.copy_(value)


def _noted(decision: Decision, note: str) -> Decision:
    return replace(decision, notes=(*decision.notes, note)) if note else decision
