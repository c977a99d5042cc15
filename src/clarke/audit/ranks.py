"""One verdict on a step of several processes: DDP averages their gradients, and theirs is judged.

Every process records its own program. After a backward pass each tells, in a few numbers, whether
its program touched a kink that may matter, and a checksum of its gradients before and after they
were averaged. Where nothing was touched anywhere, the mean is smooth and nothing else is sent.
Else the programs are sent to rank 0, which judges the mean of them at once, against the gradient
that the optimizer is to take, and tells the others.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.letters import (
    BLOCK,
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
from clarke.audit.post import Post
from clarke.decide import Decision
from clarke.errors import CaptureError, ClarkeError
from clarke.fast import all_finite
from clarke.numerics import AVERAGED, POST_BYTES, POST_PATIENCE, POST_SECONDS
from clarke.torch_private import (
    comm_hooks,
    is_sharded,
    processes,
    replicas,
    shared_parameters,
    step_number,
    why_not_shared,
)
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.audit.engine import BackwardCall
    from clarke.audit.groups import Group
    from clarke.audit.judge import Case
    from clarke.decide import Settings

_DIGEST = 1 << 4

ALONE = (
    "Several processes train together here (torch.distributed): the gradient that the optimizer "
    "takes is put together from all of theirs, and clarke sees those of one. Audit the program as "
    "a single process, on the whole batch."
)
_LATER = (
    "Under no_sync this gradient is a part of one that is put together over all processes later, "
    "and it stands at kinks: the sum is judged then."
)
_AFTER_ALL = (
    "The backward pass ran under no_sync, and .grad is not what this process has added to it: "
    "no_sync has to hold the forward pass as well, or the gradients are put together at once."
)
_JOINED = (
    "Inside of join() some processes take part in an averaging without a step of their own, so "
    "that there is no joint step to judge."
)
_GROUPED = (
    "This DistributedDataParallel averages over some of the processes only, which clarke does not "
    "follow."
)
_BESIDE = (
    "Beside parameters whose gradients DistributedDataParallel averages, this call reaches leaves "
    "of this process alone. Name the former in `wrt`, to judge their gradient."
)


_UNNUMBERED = (
    "torch.distributed did not average anything in this call, or does not say which averaging it "
    "was, so that the processes cannot tell which steps of theirs belong together."
)


class NotSharedError(CaptureError):
    """A call whose gradients no other process has a part in, or not yet."""


class Ranks:
    """The processes that train with this one, as an audit sees them.

    Attributes:
        lost: Why no other process is asked any more; "" while they answer.
    """

    def __init__(self) -> None:
        self.lost = ""
        self._sharded = False
        self._replicas: list[weakref.ref[Any]] = []
        self._looked: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._post: Post | None = None
        self._last = ""
        self._weights: torch.Tensor | None = None

    def weights(self) -> torch.Tensor:
        """What checksums multiply with, computed once."""
        if self._weights is None:
            self._weights = torch.cos(torch.arange(BLOCK, dtype=torch.float64))
        return self._weights

    def aside(self, root: object = None) -> str:
        """Why nothing is to be recorded; asked when a module begins to run, with that module."""
        if processes() <= 1:
            return ""
        if isinstance(root, torch.nn.Module) and root not in self._looked:
            self._looked.add(root)
            self._sharded = self._sharded or is_sharded(root)
            known = [r() for r in self._replicas]
            new = [r for r in replicas(root) if not any(r is k for k in known)]
            self._replicas += [weakref.ref(r) for r in new]
        return ALONE if self._sharded or not self._replicas else ""

    def _alive(self) -> list[Any]:
        found = [r() for r in self._replicas]
        return [r for r in found if r is not None]

    def meeting(
        self,
        call: BackwardCall,
        leaves: Sequence[torch.Tensor],
        wrt: Sequence[torch.Tensor] | None,
    ) -> Meeting:
        """What this call is to the other processes.

        Raises:
            NotSharedError: They have no part in it.
            CaptureError: They have, and it cannot be judged.
        """
        ids = {id(x) for x in leaves}
        owners = [(r, shared_parameters(r)) for r in self._alive()]
        owners = [(r, ps) for r, ps in owners if not ids.isdisjoint([id(p) for p in ps])]
        if not owners or not call.accumulates:
            raise NotSharedError(ALONE)
        states = {why_not_shared(r) for r, _ in owners}
        for state, why in (("join", _JOINED), ("group", _GROUPED)):
            if state in states:
                raise NotSharedError(why)
        if self.lost:
            raise NotSharedError(self.lost)
        wanted = None if wrt is None else {id(x) for x in wrt}
        shared: dict[int, torch.Tensor] = {}
        which = []
        for n, p in enumerate(p for _, ps in owners for p in ps):
            if wanted is None or id(p) in wanted:
                shared.setdefault(id(p), p)
                which.append((n, tuple(p.shape), str(p.dtype)))
        if not ids <= shared.keys():
            raise CaptureError(_BESIDE)
        hooks = sorted({h for r, _ in owners for h in comm_hooks(r)})
        names = blake2b(repr(which).encode(), digest_size=_DIGEST).hexdigest()
        later = "no_sync" in states
        return Meeting(self, tuple(shared.values()), later=later, hooks=hooks, names=names)

    def expects(self, call: BackwardCall) -> bool:
        """Whether other processes may wait to hear of a call that this one cannot judge."""
        if self.lost or not call.accumulates:
            return False
        return any(not why_not_shared(r) for r in self._alive())

    def excuse(self, why: str) -> None:
        """Tell the others that this process cannot judge the step."""
        try:
            post, name, _ = self.next()
            told = dumped({"why": f"Rank {post.rank} could not judge its part: {why}"})
            if post.rank:
                post.send(f"{name}/flags/{post.rank}", told)
            else:
                post.send(f"{name}/plan", told)
        except ClarkeError as error:
            self.lost = str(error)

    def next(self) -> tuple[Post, str, str]:
        """Where to tell of a step, under which name, and the name of the one before it.

        The name is how many collectives the processes have gone through: whoever comes out of the
        same averaging says the same, whatever else was judged where.

        Raises:
            CaptureError: There is no such number, or nothing was averaged since.
        """
        if self._post is None:
            self._post = Post()
        name = next((step_number(r) for r in self._alive() if not why_not_shared(r)), "")
        if not name or name == self._last:
            raise CaptureError(_UNNUMBERED)
        before, self._last = self._last, name
        return self._post, name, before


@dataclass(frozen=True)
class Part:
    """What one process has of a step.

    Attributes:
        case: Its program.
        local: The gradient that it computed, by leaf of the case.
        early: What the quick judge found, if it was asked.
        group: The calls that this one adds up with.
    """

    case: Case
    local: tuple[torch.Tensor, ...]
    early: Decision | None
    group: Group | None

    @property
    def is_smooth(self) -> bool:
        """Whether this call stands at no kink that matters."""
        early = self.early
        return early is not None and early.verdict is Verdict.SMOOTH and all_finite(self.local)

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

    def begin(self) -> None:
        """Look at what ``.grad`` holds before the call."""
        self._before = self._checksum(list(enumerate(x.grad for x in self.leaves)))

    def part(self, part: Part) -> Decision:
        """What is said of a call whose gradient is put together later, with others."""
        if part.early is None or not part.is_smooth:
            remember(part, packed(part, self._numbered(part)))
            return Decision(Verdict.UNDECIDED, _LATER)
        mine = self._checksum(list(zip(self._numbered(part), part.local, strict=True)))
        now = self._checksum(list(enumerate(x.grad for x in self.leaves)))
        size = mine[1] + self._before[1]
        if abs(now[0] - mine[0] - self._before[0]) > AVERAGED * self._eps() * size:
            return Decision(Verdict.UNDECIDED, _AFTER_ALL)
        return part.early

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
        post, name, before = self._ranks.next()
        own = self._numbered(part)
        sums = self._checksum(list(zip(own, part.local, strict=True)))
        flags = {
            "smooth": part.is_smooth
            and not part.apart
            and not (part.group and part.group.programs),
            "fresh": part.fresh,
            "why": "",
            "apart": part.apart,
            "mine": [a + b for a, b in zip(sums, self._before, strict=True)],
            "mean": list(self._checksum(list(enumerate(gradient)))),
            "eps": self._eps(),
            "hooks": self._hooks,
            "leaves": self._names,
        }
        try:
            plan = self._plan(post, name, before, flags)
            if plan["why"]:
                forget(part, "an earlier call could not be judged over all processes")
                return Decision(Verdict.UNDECIDED, plan["why"])
            if plan["smooth"] and part.early is not None:
                return part.early
            job = Job(post, name, settings, seconds, fresh=plan["fresh"])
            return self._all_together(job, part, gradient)
        except ClarkeError as error:
            forget(part, "an earlier call could not be judged over all processes")
            self._ranks.lost = (
                "The processes of this training could not agree on an earlier step, so that clarke "
                f"asks them no more. {error}"
            )
            raise

    def _numbered(self, part: Part) -> list[int]:
        return [self._numbers[id(x)] for x in part.case.leaves]

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
        own = packed(part, self._numbered(part))
        sent = bundle([*(part.group.programs if part.group else ()), own])
        remember(part, own)
        if len(sent) > POST_BYTES / post.world:
            why = f"What rank {post.rank} recorded takes {len(sent)} bytes, too many to be sent."
            sent = bundle([dumped({"why": why}) + b"\n"])
        patience = POST_SECONDS + (POST_PATIENCE if job.seconds is None else job.seconds)
        if post.rank:
            post.send(f"{name}/program/{post.rank}", sent)
            return told(post.receive([f"{name}/verdict"], patience)[0], gradient)
        others = [f"{name}/program/{r}" for r in range(1, post.world)]
        try:
            raw = [sent, *post.receive(others, POST_SECONDS)]
        except CaptureError as error:
            post.send(f"{name}/verdict", answer(Decision(Verdict.UNDECIDED, str(error)), {}))
            raise
        decision, element = judged(raw, job, gradient)
        reply = answer(decision, element)
        post.send(f"{name}/verdict", reply)
        post.drop(others)
        # Rank 0 holds the proof and the kinks of all; what the others do with it, it does too.
        return replace(decision, element=told(reply, gradient).element)

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
