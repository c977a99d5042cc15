"""What every test gets: hypothesis profiles, and torch's global state as it was before."""

import gc
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.modules.module as torch_module
from hypothesis import HealthCheck, settings
from torch.overrides import _len_torch_function_stack
from torch.utils._python_dispatch import _len_torch_dispatch_stack

from clarke.deadline import Deadline

# The examples of `ci` are the same in every run, so that a failure there can be repeated; `dev`
# draws new ones each time and `thorough` many more. Choose with HYPOTHESIS_PROFILE. None has a
# deadline: the first call into torch is slow by itself.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", deadline=None, max_examples=25, print_blob=True)
settings.register_profile(
    "thorough",
    settings.get_profile("dev"),
    max_examples=1000,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)

_SLOW = Path(__file__).with_name("slow.txt")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what slow.txt lists."""
    lines = (line for line in _SLOW.read_text().splitlines() if not line.startswith("#"))
    slow = frozenset(lines)
    for item in items:
        if item.nodeid in slow or item.nodeid.split("[")[0] in slow:
            item.add_marker(pytest.mark.slow)


def _global_hooks() -> dict[str, dict[int, object]]:
    """The hooks that torch runs for every module, by the registry that holds them."""
    return {
        name: registry
        for name, registry in vars(torch_module).items()
        if name.startswith("_global_") and isinstance(registry, dict)
    }


def _open_modes() -> dict[str, int]:
    return {
        "torch function modes": _len_torch_function_stack(),
        "torch dispatch modes": _len_torch_dispatch_stack(),
    }


@pytest.fixture(autouse=True)
def clean_torch() -> Iterator[None]:
    """Seed the generators, restore them afterwards, and fail a test that leaves something behind.

    Left behind means: a global module hook, an open mode, a replaced `Tensor.backward` or
    `autograd.grad`, another default dtype, gradients switched off. Hooks, dtype and gradient mode
    are put back, so that one such test does not fail the next.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - the global generator is what is saved
    hooks = {name: dict(registry) for name, registry in _global_hooks().items()}
    modes = _open_modes()
    entry_points = torch.Tensor.backward, torch.autograd.grad, torch.autograd.backward
    dtype = torch.get_default_dtype()
    grad_enabled = torch.is_grad_enabled()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - as above
    random.seed(0)

    yield

    # What a test has compiled takes the hooks from every later audit of the process.
    frames = sys.modules.get("torch._dynamo.eval_frame")
    if frames is not None and any(map(callable, frames.cached_backends.values())):
        torch._dynamo.reset()

    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002 - as above
    random.setstate(states[2])

    left = []
    for name, registry in _global_hooks().items():
        if registry != hooks[name]:
            left.append(f"hooks in torch.nn.modules.module.{name}")
            registry.clear()
            registry.update(hooks[name])
    left += [f"open {kind}" for kind, depth in _open_modes().items() if depth != modes[kind]]
    if (torch.Tensor.backward, torch.autograd.grad, torch.autograd.backward) != entry_points:
        left.append("a replaced torch.Tensor.backward, torch.autograd.grad or .backward")
    if torch.get_default_dtype() != dtype:
        left.append(f"default dtype {torch.get_default_dtype()}")
        torch.set_default_dtype(dtype)
    if torch.is_grad_enabled() != grad_enabled:
        left.append(f"gradients {'enabled' if torch.is_grad_enabled() else 'disabled'}")
        torch.set_grad_enabled(grad_enabled)
    assert not left, f"the test left behind: {', '.join(left)}"


# How far a call may exceed its limit: half a second for one call of torch that is under way, and a
# tenth for the estimates of what cannot be interrupted.
_LATE_SECONDS, _LATE_SHARE = 0.5, 0.1


class _Collections:
    """Seconds for which Python has collected garbage: what other tests left, and no call's work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._began


@pytest.fixture(scope="session")
def collections() -> Iterator[_Collections]:
    found = _Collections()
    gc.callbacks.append(found)
    yield found
    gc.callbacks.remove(found)


class _ProcessorClock:
    """`time.process_time`, asked of the system every two milliseconds at most: it takes 7 us."""

    def __init__(self, collections: _Collections) -> None:
        self._collections = collections
        self._asked = -math.inf
        self._found = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._asked > 0.002:
            self._asked, self._found = now, time.process_time() - self._collections.seconds
        return self._found


@pytest.fixture(autouse=True)
def processor_time(monkeypatch: pytest.MonkeyPatch, collections: _Collections) -> None:
    """Let time limits count what the process computes, so that a busy machine decides no test.

    Tests of the clock itself hand their own to `Deadline`; other processes use the wall's.
    """
    monkeypatch.setattr(Deadline.after.__func__, "__defaults__", (_ProcessorClock(collections),))


@pytest.fixture(autouse=True)
def kept_limits(monkeypatch: pytest.MonkeyPatch, collections: _Collections) -> Iterator[None]:
    """Fail a test in which a call of clarke's took longer than its time limit.

    Counted is the processor time of the call's own thread, so that a busy machine fails nothing;
    garbage collections do not count: they go through what all tests before have left.
    """
    late = []
    began: dict[int, tuple[float, float]] = {}
    enter, leave = Deadline.__enter__, Deadline.__exit__

    def entered(self: Deadline) -> Deadline:
        began[id(self)] = time.thread_time() - collections.seconds, self.at
        return enter(self)

    def left(self: Deadline, *exc: object) -> None:
        started, first = began.pop(id(self))
        # What was loaded meanwhile is granted; of an audited call earlier parts have used up some.
        limit = max(self.seconds + self.at - first, 0.0)
        leave(self, *exc)
        spent = time.thread_time() - collections.seconds - started
        # A clock that a test hands in counts something else, questions for instance.
        counted = isinstance(self._clock, _ProcessorClock) and math.isfinite(limit)
        if counted and spent > limit * (1 + _LATE_SHARE) + _LATE_SECONDS:
            late.append(f"{spent:.1f} s instead of {limit:g} s")

    monkeypatch.setattr(Deadline, "__enter__", entered)
    monkeypatch.setattr(Deadline, "__exit__", left)
    yield
    assert not late, f"calls above their time limit: {', '.join(late)}"


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    """Nothing that dynamo has compiled before, or counted, is there; nor afterwards."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()
