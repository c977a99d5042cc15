"""One verdict on a step of several processes: what they put together of their gradients is judged.

Every process records its own program. After a backward pass each tells, in a few numbers, whether
its program touched a kink that may matter, and a checksum of its gradients before and after they
were averaged. Where nothing was touched anywhere, the mean is smooth and nothing else is sent.
Else the programs are sent to rank 0, which judges the mean of them at once, against the gradient
that the optimizer is to take, and tells the others.
"""

from __future__ import annotations

import weakref
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.letters import BLOCK, dumped
from clarke.audit.meeting import Meeting
from clarke.audit.post import Post
from clarke.audit.shards import ShardedMeeting
from clarke.errors import CaptureError, ClarkeError
from clarke.torch_private import (
    comm_hooks,
    processes,
    replicas,
    shared_parameters,
    step_number,
    why_not_shared,
)
from clarke.torch_sharded import (
    Fleeting,
    divisor_of,
    groups_of,
    hooks_of,
    in_processes,
    is_flattened,
    is_spread_over_processes,
    position_of,
    reduces_now,
    shards_of,
    uses_processes,
    why_not_followed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.audit.engine import BackwardCall

_DIGEST = 1 << 4

ALONE = (
    "Several processes train together here (torch.distributed): the gradient that the optimizer "
    "takes is put together from all of theirs, and clarke sees those of one. Audit the program as "
    "a single process, on the whole batch."
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
    "Beside parameters whose gradients all processes put together, this call reaches leaves of "
    "this process alone. Name the former in `wrt`, to judge their gradient."
)
_UNFOLLOWED = "This model has {}, which clarke does not follow."
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
        gathered: Tells parameters that are put together for use.
    """

    def __init__(self) -> None:
        self.lost = ""
        self.gathered = Fleeting()
        self._flattened = False  # sharded in a way that is not followed
        self._spread = False  # operators of theirs are named when they are met
        self._replicas: list[weakref.ref[Any]] = []
        self._blind = False  # nobody tells which modules run
        self._searches = self._asked = 0
        self._looked: weakref.WeakKeyDictionary[torch.nn.Module, type] = weakref.WeakKeyDictionary()
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
        if not uses_processes():
            return ""
        if isinstance(root, torch.nn.Module):
            self._look_at(root)
        if processes() <= 1:
            return ""
        if self._blind and not self._known:
            self._search_sometimes()
        return ALONE if self._flattened or not self._known else ""

    @property
    def _known(self) -> bool:
        return bool(self._alive() or self.gathered.groups()) or self._spread

    def _look_at(self, root: torch.nn.Module) -> None:
        if self._looked.get(root) is type(root):
            return
        self._looked[root] = type(root)  # `fully_shard` gives a module another type
        self.gathered.add(groups_of(root))
        self._flattened = self._flattened or is_flattened(root)
        self._spread = self._spread or is_spread_over_processes(root)
        old = self._alive()
        new = [r for r in replicas(root) if not any(r is k for k in old)]
        self._replicas += [weakref.ref(r) for r in new]

    def go_blind(self) -> None:
        """From now on no hook tells which modules run: the program is compiled."""
        self._blind = True
        self.search()

    def search(self) -> None:
        """Look for modules that several processes train among all that there are."""
        if uses_processes():
            for module in in_processes():
                self._look_at(module)

    def _search_sometimes(self) -> None:
        """As the program may have made one since, but it takes tens of milliseconds."""
        self._asked += 1
        if self._asked >= 1 << self._searches:
            self._searches += 1
            self.search()

    @property
    def together(self) -> bool:
        """Whether gradients are put together from parts, or of parameters in parts."""
        return processes() > 1 or bool(self.gathered.groups())

    def _alive(self) -> list[Any]:
        found = [r() for r in self._replicas]
        return [r for r in found if r is not None]

    def wholes(self, wrt: Sequence[torch.Tensor] | None) -> Sequence[torch.Tensor] | None:
        """What a program computes with, of parameters that a user names."""
        groups = self.gathered.groups()
        if wrt is None or not groups:
            return wrt
        known = {id(s.own): s.leaf for s in shards_of(groups)}
        found = [known.get(id(x)) for x in wrt]
        return [*wrt, *(x for x in found if x is not None)]

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
        groups = [g for g in self.gathered.groups() if _computes_with(g, ids)]
        if groups and call.accumulates:
            return self._sharded(groups, ids, wrt)
        owners = [(r, shared_parameters(r)) for r in self._alive()]
        owners = [(r, ps) for r, ps in owners if not ids.isdisjoint([id(p) for p in ps])]
        if not owners or not call.accumulates:
            if self._blind and call.accumulates:
                self._search_sometimes()
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
        names = _digest(which)
        later = "no_sync" in states
        return Meeting(self, tuple(shared.values()), later=later, hooks=hooks, names=names)

    def _sharded(
        self, groups: Sequence[Any], ids: set[int], wrt: Sequence[torch.Tensor] | None
    ) -> Meeting:
        """The same of a model under `fully_shard`, some groups of which a call computes with."""
        contexts = {id(g.comm_ctx) for g in groups}
        groups = [g for g in self.gathered.groups() if id(g.comm_ctx) in contexts]
        why = next((w for g in groups if (w := why_not_followed(g))), "")
        if not why and len({(reduces_now(g), divisor_of(g)) for g in groups}) > 1:
            why = "groups of parameters that put gradients together differently"
        if why:
            raise NotSharedError(_UNFOLLOWED.format(why))
        if self.lost:
            raise NotSharedError(self.lost)
        wanted = None if wrt is None else {id(x) for x in wrt}
        shards = [
            s
            for s in shards_of(groups)
            if wanted is None or not s.own.requires_grad or id(s.own) in wanted
        ]
        if not ids <= {id(s.leaf) for s in shards}:
            raise CaptureError(_BESIDE)
        which = [(s.name, tuple(s.shape), str(s.own.dtype)) for s in shards]
        hooks = sorted({h for g in groups for h in hooks_of(g)})
        return ShardedMeeting(self, groups, shards, hooks=hooks, names=_digest(which))

    def expects(self, call: BackwardCall) -> bool:
        """Whether other processes may wait to hear of a call that this one cannot judge."""
        if self.lost or not call.accumulates:
            return False
        groups = self.gathered.groups()
        return any(not why_not_shared(r) for r in self._alive()) or any(map(reduces_now, groups))

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

    def next(self, meeting: Meeting | None = None) -> tuple[Post, str, str]:
        """Where to tell of a step, under which name, and the name of the one before it.

        The name is how many collectives the processes have gone through: whoever comes out of the
        same averaging says the same, whatever else was judged where.

        Raises:
            CaptureError: There is no such number, or nothing was averaged since.
        """
        if self._post is None:
            self._post = Post()
        name = "" if meeting is None else meeting.position()
        if not name:
            numbers = [step_number(r) for r in self._alive() if not why_not_shared(r)]
            numbers += [position_of(g) for g in self.gathered.groups() if not why_not_followed(g)]
            name = next(iter(numbers), "")
        if not name or name == self._last:
            raise CaptureError(_UNNUMBERED)
        before, self._last = self._last, name
        return self._post, name, before


def _digest(which: list[Any]) -> str:
    return blake2b(repr(which).encode(), digest_size=_DIGEST).hexdigest()


def _computes_with(group: Any, ids: set[int]) -> bool:
    return any(id(s.leaf) in ids for s in shards_of([group]))
