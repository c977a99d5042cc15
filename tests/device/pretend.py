"""A device that is none: an accelerator of torch's whose memory is the processor's.

Its tensors are torch's own, of a device of their own, with kernels in Python: none of their values
can be read but through the device, operands on the processor are refused as CUDA refuses them, and
each operation that a real device would have to wait for is counted with the line that asked.
"""

import ctypes
import sys
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "pretend"
_ELSEWHERE = 12  # kDLExtDev of DLPack
# Of these the result, or its shape, is known to Python once the device is done.
WAITING = frozenset(
    {
        "_local_scalar_dense",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "unique_dim",
        "_unique2",
        "unique_consecutive",
        "bincount",
        "repeat_interleave",
    }
)
ACROSS = frozenset({"_copy_from", "_copy_from_and_resize", "_to_copy", "copy_"})
INDEXED = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})


class Module:
    """What torch asks a device's module for."""

    def __init__(self):
        self._seed = torch.tensor([0], dtype=torch.uint8)

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def _is_in_bad_fork(self):
        return False

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def manual_seed_all(self, _seed):
        pass

    def get_rng_state(self, _device=0):
        return self._seed.clone()

    def set_rng_state(self, state, _device=0):
        self._seed = state.clone()

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]


class Device:
    """The device, once in a process.

    Attributes:
        waits: Who asked for values: operation, module, function and line, while counted.
    """

    def __init__(self):
        self.waits = []
        self._counts = False
        torch.utils.backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
        self._library = torch.library.Library("aten", "IMPL")
        aten = torch.ops.aten

        def forward(*args):
            return self._run(aten.convolution.default, *args)

        def backward(adjoint, x, w, *rest):
            *geometry, mask = rest
            rest = ([adjoint.shape[1]], *geometry, mask)
            return self._run(aten.convolution_backward.default, adjoint, x, w, *rest)

        kernels = {
            "convolution_overrideable": forward,
            "convolution_backward_overrideable": backward,
        }
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        for whole in torch._C._dispatch_get_all_op_names():
            space, _, name = whole.partition("::")
            if space != "aten" or has(whole, "CompositeImplicitAutograd"):
                continue
            if has(whole, "CompositeExplicitAutograd") or not has(whole, "CPU"):
                continue
            packet, _, overload = name.partition(".")
            op = getattr(getattr(aten, packet), overload or "default")
            kernels[name] = partial(self._run, op)
        casts = torch.library.Library("_", "IMPL")
        casts.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        for name in ("linear", "conv2d", "matmul"):
            self._library.impl(name, partial(_cast, getattr(aten, name)), "AutocastPrivateUse1")
        self._casts = casts
        kernels["_copy_from"] = partial(self._run, aten._copy_from.default)
        for name, kernel in kernels.items():
            self._library.impl(name, kernel, "PrivateUse1")

    @contextmanager
    def counting(self):
        """Count who waits."""
        self._counts = True
        try:
            yield
        finally:
            self._counts = False

    # ------------------------------------------------------------ tensors

    def _there(self, value):
        """The values of a tensor, on the processor: the same memory."""
        if value.device.type == "cpu":
            return value
        own = value.untyped_storage()
        memory = torch._C._construct_storage_from_data_pointer(
            own.data_ptr(), torch.device("cpu"), own.nbytes()
        )
        found = torch.empty(0, dtype=value.dtype)
        return found.set_(memory, value.storage_offset(), value.size(), value.stride())

    def _here(self, value, given):
        """A tensor of the device with a result's values."""
        at = value.untyped_storage().data_ptr()
        own = next(
            (
                t
                for t in given
                if at and t.dtype == value.dtype and t.untyped_storage().data_ptr() == at
            ),
            None,
        )
        if own is None:
            flat = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
            own = _moved(flat)
        ahead = value.storage_offset() - own.storage_offset()
        place = list(value.size()), list(value.stride()), ahead
        return torch._C._dynamo.guards._reinterpret_tensor(own, *place)

    # ------------------------------------------------------------ operations

    def _run(self, op, *args, **kwargs):
        name = op._schema.name.partition("::")[2]
        found = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        given = [t for t in found if t.device.type == NAME]
        home = self._leaves(op, name, args, kwargs, found, given)
        if self._counts and (home or name in WAITING or _asks_masks(name, args)):
            self._note(name)
        known = {}

        def inside(tensor):
            # What an operation makes as large as it needs to be is given that memory afterwards.
            grows = "out" in op._overloadname and tensor.numel() == 0 and tensor.device.type == NAME
            there = torch.empty(0, dtype=tensor.dtype) if grows else self._there(tensor)
            known[id(there)] = tensor
            held.append(there)
            return there

        held = []
        args, kwargs = tree_map_only(torch.Tensor, inside, (args, kwargs))
        if isinstance(kwargs.get("device"), torch.device):
            kwargs["device"] = torch.device("cpu")
        if name == "_copy_from":
            return known[id(args[1].copy_(args[0]))]
        # A number in a tensor's place comes as one: the overload for numbers takes it.
        pairs = zip(op._schema.arguments, args, strict=False)
        numbers = any("Tensor" in str(a.type) and isinstance(v, (int, float)) for a, v in pairs)
        result = (op.overloadpacket if numbers else op)(*args, **kwargs)
        for there in held:
            if known[id(there)].numel() == 0 and there.numel():
                known[id(there)].data = self._here(there, [])
        if home:
            return known.get(id(result), result)
        return tree_map_only(
            torch.Tensor,
            lambda t: known[id(t)] if id(t) in known else self._here(t, given),
            result,
        )

    def _leaves(self, op, name, args, kwargs, found, given):
        """Whether values go to the processor; an error where devices are mixed."""
        device = kwargs.get("device")
        if name in ACROSS:
            if name == "_to_copy":
                return bool(given) and device is not None and device.type == "cpu"
            target = args[1] if name.startswith("_copy_from") else args[0]
            return target.device.type == "cpu"
        # A number may be anywhere; so may indices.
        others = [t for t in found if t.device.type == "cpu" and t.dim()]
        if given and others and name not in INDEXED:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {op} was given one on cpu"
            )
        return False

    def _note(self, name):
        frame = sys._getframe(2)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.split(".")[0] not in ("torch", __name__.split(".")[0]):
                break
            frame = frame.f_back
        self.waits.append((name, module, frame.f_code.co_name, frame.f_lineno))


def _moved(value):
    """A tensor of the device that holds the memory of one on the processor."""
    capsule = torch.utils.dlpack.to_dlpack(value)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    at = pointer(capsule, b"dltensor")
    # Behind the pointer to the values: which device they lie on.
    ctypes.c_int32.from_address(at + ctypes.sizeof(ctypes.c_void_p)).value = _ELSEWHERE
    return torch._C._from_dlpack(capsule)


def _cast(op, *args, **kwargs):
    """An operation in the type of autocast."""
    kind = torch.get_autocast_dtype(NAME)
    args = [a.to(kind) if isinstance(a, torch.Tensor) else a for a in args]
    with torch.autocast(NAME, enabled=False):
        return op(*args, **kwargs)


def _asks_masks(name, args):
    return name in INDEXED and any(
        t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]
    )
