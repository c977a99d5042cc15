"""What an interrupt must leave as it was, and interrupts that strike at a chosen step."""

import os
import sys
from pathlib import Path

import torch
import torch.autograd.forward_ad as fwd
import torch.nn.modules.module as torch_module
import torch.optim.optimizer as torch_optimizer
from torch.autograd.function import _HookMixin
from torch.overrides import _len_torch_function_stack
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import _len_torch_dispatch_stack

import clarke

READERS = ("numpy", "tolist", "__array__", "__dlpack__")
_OWN = str(Path(clarke.__file__).parent) + os.sep
# What clarke's own steps go through on their way in and out.
_NEAR = ("contextlib.py", "_python_dispatch.py", "grad_mode.py", "autocast_mode.py", "graph.py")


def state():
    """What clarke touches of torch."""
    return {
        "gradients on": torch.is_grad_enabled(),
        "dispatch modes": _len_torch_dispatch_stack(),
        "dispatch flags": [v for k, v in vars(_python_dispatch).items() if k.startswith("_is_in_")],
        "function modes": _len_torch_function_stack(),
        "functions seen": torch._C._is_torch_function_enabled(),
        "dispatch seen": [
            torch._C._dispatch_tls_is_dispatch_key_excluded(key)
            for key in (
                torch._C.DispatchKey.Python,
                torch._C.DispatchKey.PythonTLSSnapshot,
                torch._C.DispatchKey.ADInplaceOrView,
            )
        ],
        "module hooks": [
            len(registry)
            for name, registry in vars(torch_module).items()
            if name.startswith("_global_") and isinstance(registry, dict)
        ],
        "optimizer hooks": [
            len(torch_optimizer._global_optimizer_pre_hooks),
            len(torch_optimizer._global_optimizer_post_hooks),
        ],
        "readers": [torch.Tensor.__dict__.get(name) for name in READERS],
        "register_hook": torch.Tensor.register_hook,
        "node hooks": _HookMixin.__dict__["_register_hook"],
        "engine": torch.autograd._engine_run_backward,
        "compile": torch.compile,
        "default dtype": torch.get_default_dtype(),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "saved tensors": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "autocast": torch.is_autocast_enabled("cpu"),
        "inference": torch.is_inference_mode_enabled(),
        "forward mode": torch._C._is_fwd_grad_enabled(),
    }


def forward_mode_works():
    """Tangents go through torch, as they always do."""
    x = torch.ones(2)
    with fwd.dual_level():
        found = fwd.unpack_dual(3 * fwd.make_dual(x, x)).tangent
    assert found.tolist() == [3.0, 3.0]
    assert torch.func.jvp(torch.sin, (x,), (x,))[1].tolist() == x.cos().tolist()


class Steps:
    """Follows the steps of Python's inside clarke's frames, and the calls right below them.

    Args:
        strike: The number of the step at which KeyboardInterrupt is raised; None to go through.
    """

    def __init__(self, strike=None):
        self.strike = strike
        self.count = 0
        self.struck = ""
        self.seen = {}  # (file, function, instruction): the numbers of its first and last step

    def __call__(self, frame, event, arg):
        name = frame.f_code.co_filename
        if not name.startswith(_OWN):
            if name.endswith(_NEAR):
                self._step(frame, -1)
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._inside

    def _inside(self, frame, event, arg):
        if event == "opcode":
            self._step(frame, frame.f_lasti)
        return self._inside

    def _step(self, frame, instruction):
        if self.strike is None:
            code = frame.f_code
            key = (code.co_filename, code.co_name, code.co_firstlineno, instruction)
            first, _ = self.seen.get(key, (self.count, 0))
            self.seen[key] = first, self.count
        elif self.count == self.strike:
            code = frame.f_code
            self.struck = f"{code.co_filename}:{frame.f_lineno} {code.co_name} {instruction}"
            sys.settrace(None)
            raise KeyboardInterrupt
        self.count += 1


def stepped(call, steps):
    """Run a call under `steps`; the error that it ended with, if it was struck."""
    earlier = sys.gettrace()
    try:
        sys.settrace(steps)
        call()
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.settrace(earlier)
    return None


def places(call):
    """All instructions that a call goes through, each with one or two of its steps' numbers."""
    steps = Steps()
    stepped(call, steps)
    return steps.seen
