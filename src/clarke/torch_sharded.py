"""What clarke uses of torch's sharding (FSDP2, DTensor), mostly under names torch may change.

Where a version of torch lacks them, a sharded training is not followed, and says so.
"""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch

from clarke.torch_private import is_of_replica, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_FSDP = "torch.distributed.fsdp"


def is_spread(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a `DTensor`: of its values a process holds a part."""
    found: Any = sys.modules.get("torch.distributed.tensor")
    return found is not None and isinstance(tensor, found.DTensor)


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor: all of it, but for a `DTensor`.

    An attribute, since whatever is computed of a `DTensor` may speak to other processes.
    """
    found: torch.Tensor = tensor._local_tensor if is_spread(tensor) else tensor  # type: ignore[attr-defined]  # noqa: SLF001 - `to_local` is an operation
    return found


def groups_of(root: torch.nn.Module) -> list[Any]:
    """What `fully_shard` made of a module and those in it: groups of parameters, each once."""
    kind: Any = getattr(sys.modules.get(_FSDP), "FSDPModule", None)
    found: dict[int, Any] = {}
    for module in () if kind is None else root.modules():
        if isinstance(module, kind):
            state = module._get_fsdp_state()  # noqa: SLF001 - has no public name
            groups = getattr(state, "_fsdp_param_groups", None)
            if groups is None:  # torch 2.6 to 2.11
                groups = [g for g in (state._fsdp_param_group,) if g is not None]  # noqa: SLF001 - as above
            found.update((id(g), g) for g in groups)
    return list(found.values())


def in_processes() -> list[torch.nn.Module]:
    """All modules here whose parameters several processes train, found without anybody's hooks.

    By their types alone: nothing of another object is asked, which might have it do something.
    """
    ddp: Any = sys.modules.get("torch.nn.parallel.distributed")
    fsdp: Any = sys.modules.get(_FSDP)
    kinds = [
        getattr(ddp, "DistributedDataParallel", None),
        getattr(fsdp, "FSDPModule", None),
        getattr(fsdp, "FullyShardedDataParallel", None),
    ]
    known = tuple(k for k in kinds if k is not None)
    return [x for x in gc.get_objects() if issubclass(type(x), known)]


def uses_processes() -> bool:
    """Whether torch.distributed is in use, be it by one process."""
    distributed: Any = sys.modules.get("torch.distributed")
    return bool(
        distributed is not None and distributed.is_available() and distributed.is_initialized()
    )


def is_flattened(root: torch.nn.Module) -> bool:
    """Whether parameters of a module lie in parts of one flat tensor (FSDP1)."""
    wrapper = getattr(sys.modules.get(_FSDP), "FullyShardedDataParallel", ())
    return any(isinstance(m, wrapper) for m in root.modules())


def is_spread_over_processes(root: torch.nn.Module) -> bool:
    """Whether parameters of a module are `DTensor`s, by whose operations processes speak."""
    return any(is_spread(p) for p in root.parameters())


def hooks_of(group: Any) -> list[str]:
    """The names of what a user has put in the way of a group's gradients."""
    hook, sender = group._all_reduce_hook, group._reduce_scatter_comm  # noqa: SLF001 - have no public name
    named = [] if hook is None else [getattr(hook, "__qualname__", type(hook).__name__)]
    own = is_of_sharding(type(sender))
    return named if own else [*named, type(sender).__name__]


def is_of_sharding(kind: Any) -> bool:
    """Whether a `torch.autograd.Function`, or a hook on a gradient, is FSDP2's own.

    They start what gathers and reduces, and hand values and gradients through as they are.
    """
    return str(getattr(kind, "__module__", "")).startswith(f"{_FSDP}._fully_shard")


def hands_through(function: type) -> bool:
    """Whether a `torch.autograd.Function` is of what puts gradients of processes together.

    Its derivative is no author's code: values and gradients come out of it as they went in.
    """
    return is_of_replica(function) or is_of_sharding(function)


def divisor_of(group: Any) -> float:
    """What the sum of all processes' gradients is divided by."""
    factor = group.gradient_divide_factor
    return float(processes() if factor is None else factor)


def reduces_now(group: Any) -> bool:
    """Whether a backward pass puts gradients together; else they wait for one that does."""
    return bool(group.reduce_grads)


def position_of(group: Any) -> str:
    """As `step_number`, of the processes that share a group's parameters."""
    shared = group.mesh_info.shard_process_group
    try:
        return f"{shared.group_name}/{shared._get_sequence_number_for_group()}"  # noqa: SLF001 - has no public name
    except (AttributeError, RuntimeError):  # pragma: no cover - a backend that does not count
        return ""


def why_not_followed(group: Any) -> str:
    """What of a group's sharding is not followed; "" if all is."""
    mesh = group.mesh_info
    if type(mesh).__name__ != "FSDPMeshInfo":
        return "parameters that are replicated as well as sharded (a mesh of two dimensions)"
    if mesh.shard_mesh_size != processes():
        return "parameters that some of the processes share"
    for p in group.fsdp_params:
        if p.is_dtensor:
            return "parameters that are sharded in two ways (tensor parallel)"
        if hasattr(p._sharded_local_tensor, "fsdp_pre_all_gather"):  # noqa: SLF001 - has no public name
            return "parameters that are gathered in a form of their own (fsdp_pre_all_gather)"
    return ""


class Shard:
    """A parameter of which every process holds a part.

    Args:
        parameter: FSDP2's own record of it.

    Attributes:
        own: The parameter as the optimizer has it, a `DTensor`.
        number: Of the process that holds this part.
        dim: The dimension along which it is cut.
    """

    def __init__(self, parameter: Any) -> None:
        self._of = parameter
        self.own: torch.Tensor = parameter.sharded_param
        self.number: int = parameter.mesh_info.shard_mesh_rank
        self.dim: int = parameter.fsdp_placement.dim
        self._world: int = parameter.mesh_info.shard_mesh_size

    @property
    def leaf(self) -> torch.Tensor | None:
        """The whole parameter, that programs compute with: memory that is freed between uses."""
        return getattr(self._of, "_unsharded_param", None)

    @property
    def shape(self) -> torch.Size:
        """Of the whole."""
        return torch.Size(self._of._orig_size)  # noqa: SLF001 - has no public name

    @property
    def name(self) -> str:
        """Within the model."""
        return str(getattr(self._of, "_param_fqn", None) or "")

    def part(self) -> torch.Tensor:
        """The values that this process holds."""
        return local_of(self.own).detach()

    def gradient(self) -> torch.Tensor | None:
        """What the optimizer takes, of this part; the memory of ``.grad`` itself."""
        return None if self.own.grad is None else local_of(self.own.grad)

    @property
    def is_handed_on(self) -> bool:
        """Whether hooks of the user's get the gradient of this part as soon as it is there."""
        return bool(self.own._post_accumulate_grad_hooks)  # noqa: SLF001 - torch has no public name for it

    def before_hooks(self, take: Callable[[torch.Tensor], None]) -> Any:
        """Let something see the parameter before these do; what comes back removes it."""
        handle = self.own.register_post_accumulate_grad_hook(take)
        self.own._post_accumulate_grad_hooks.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]  # noqa: SLF001 - as above
        return handle

    def waiting(self) -> torch.Tensor | None:
        """The gradient of this process for the whole that is not yet put together."""
        kept: torch.Tensor | None = self._of.unsharded_accumulated_grad
        return kept if kept is not None or self.leaf is None else self.leaf.grad

    def _range(self) -> tuple[int, int]:
        size = self.shape[self.dim]
        each = -(-size // self._world)
        start = min(self.number * each, size)
        return start, min(each, size - start)

    def cut(self, whole: torch.Tensor) -> torch.Tensor:
        """The part of this process, of something of the parameter's shape."""
        start, length = self._range()
        return whole.reshape(self.shape).narrow(self.dim, start, length)

    def pieces(self, part: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """A part's elements in a row, as they lie in the whole: where each row begins, and it."""
        start, length = self._range()
        inner = self.shape[self.dim + 1 :].numel()
        rows = part.reshape(-1, length * inner) if part.numel() else ()
        for i, row in enumerate(rows):
            yield (i * self.shape[self.dim] + start) * inner, row

    def joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The whole, of the parts of all processes."""
        return torch.cat(list(parts), self.dim)

    def put(self, value: torch.Tensor) -> None:
        """Let this be the gradient of this part that the optimizer takes."""
        if (held := self.gradient()) is not None:
            held.copy_(value.to(held.dtype))
        elif bool(value.any()):
            local = self.part()
            part = value.to(local.dtype).reshape(local.shape).clone()
            self.own.grad = self._of.to_sharded_dtensor(part)

    def remembered(self, *, values: bool) -> tuple[Any, ...]:
        """What `restore` puts back."""
        held, waits = self.gradient(), self.waiting()
        copies = [g.detach().clone() if values and g is not None else None for g in (held, waits)]
        leaf_grad = None if self.leaf is None else self.leaf.grad
        kept = self._of.unsharded_accumulated_grad
        return self.own.grad, held, copies[0], leaf_grad, kept, waits, copies[1]

    def restore(self, before: tuple[Any, ...]) -> None:
        """Put gradients back as they were."""
        grad, held, copy, leaf_grad, kept, waits, other = before
        for there, was in ((held, copy), (waits, other)):
            if there is not None and was is not None:
                there.copy_(was)
        self.own.grad = grad
        self._of.unsharded_accumulated_grad = kept
        if self.leaf is not None:
            self.leaf.grad = leaf_grad


def reduction_of(shard: Shard) -> list[torch.dtype]:
    """The types in which a parameter's gradient is computed and put together."""
    reduced = shard._of.reduce_dtype  # noqa: SLF001 - of this module
    own = [] if shard.leaf is None else [shard.leaf.dtype]
    return own if reduced is None else [*own, reduced]


def shards_of(groups: Iterable[Any]) -> list[Shard]:
    """All parameters of some groups."""
    return [Shard(p) for g in groups for p in g.fsdp_params]


class Gathered:
    """A parameter whose whole comes and goes; holds nothing of it."""

    def __init__(self, parameter: weakref.ref[Any]) -> None:
        self._of = parameter

    def whole(self) -> torch.Tensor | None:
        """The whole, while the model lives."""
        return getattr(self._of(), "_unsharded_param", None)

    def version(self) -> int:
        """How often something has written to the whole or to this process's part."""
        parameter, whole = self._of(), self.whole()
        if parameter is None or whole is None:
            return -1
        return whole._version + local_of(parameter.sharded_param)._version


class Fleeting:
    """Tells memory that FSDP2 frees and fills again behind tensors; holds none of it."""

    def __init__(self) -> None:
        self._groups: list[weakref.ref[Any]] = []
        self._known: dict[int, Gathered] = {}
        self._open: list[weakref.ref[Any]] = []  # parameters that have not been gathered yet

    def add(self, groups: Iterable[Any]) -> None:
        """Know of some more."""
        known = {id(g) for g in self.groups()}
        for group in groups:
            if id(group) not in known:
                self._groups.append(weakref.ref(group))
                self._open += [weakref.ref(p) for p in group.fsdp_params]

    def groups(self) -> list[Any]:
        """The groups of parameters that are known."""
        found = [r() for r in self._groups]
        return [g for g in found if g is not None]

    def __call__(self, tensor: torch.Tensor) -> Gathered | None:
        """The parameter in whose memory a tensor lies, gathered; None for other memory."""
        if self._open:
            self._open = [r for r in self._open if not self._learned(r)]
        if is_spread(tensor) or tensor.layout != torch.strided:
            return None
        memory = tensor.untyped_storage()
        found = self._known.get(memory._cdata)
        whole = None if found is None else found.whole()
        return found if whole is not None and whole.untyped_storage() is memory else None

    def _learned(self, reference: weakref.ref[Any]) -> bool:
        parameter = reference()
        whole = getattr(parameter, "_unsharded_param", None)
        if whole is not None and not is_spread(whole):
            self._known[whole.untyped_storage()._cdata] = Gathered(reference)
        return parameter is None or whole is not None
