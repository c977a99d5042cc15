"""Where the program is: the path of the running module and the user's line of code."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.modules.module as torch_module
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from clarke.capture.trace import Location
from clarke.torch_private import (
    functions_defined,
    is_behind_the_scenes,
    may_be_in_forward,
    name_as_written,
)
from clarke.undo import at_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType, FrameType

# As code objects have it: links are not followed.
_TORCH_FOLDER = f"{Path(torch.__file__).parent}{os.sep}"
_OWN_FOLDER = f"{Path(__file__).parents[1]}{os.sep}"
# Python's own modules, which call back (contextlib, functools); what is installed may lie below.
_PYTHON_FOLDER = f"{Path(os.__file__).parent}{os.sep}"
_INSTALLED = (f"{_PYTHON_FOLDER}site-packages{os.sep}", f"{_PYTHON_FOLDER}dist-packages{os.sep}")
# What runs the command line, its script among them.
_RUNNERS = (
    *(f"{Path(torch.__file__).parents[1]}{os.sep}{name}{os.sep}" for name in ("typer", "click")),
    str(Path(sys.executable).parent) + os.sep,
)
# The project's own example programs and experiments count as user code.
_OWN_EXCEPTIONS = tuple(
    _OWN_FOLDER + name for name in ("cli" + os.sep + "programs", "experiments" + os.sep)
)
# Code without a file: what Python calls it that was typed. Others (``<frozen ...>``) are generated.
_TYPED = ("<stdin>", "<string>", "<console>", "<python-input", "<ipython-input")
_WRAPPERS = 8  # decorators around a forward that are looked through
_CHECKPOINT_FILE = str(Path(_TORCH_FOLDER, "utils", "checkpoint.py"))


# Both run differentiated operations with gradients off: reentrant checkpoints, and custom
# operators with `register_autograd`.
_NO_GRAD_FORWARDS = (
    _CHECKPOINT_FILE,
    str(Path(_TORCH_FOLDER, "_library", "autograd.py")),
)
_CALL_OF_MODULE: Final = torch.nn.Module._call_impl.__code__  # noqa: SLF001 - what `__call__` runs
# Where torch keeps them; their handles take them out of there.
_GLOBAL_HOOKS: Final[Any] = (
    torch_module._global_forward_pre_hooks,  # noqa: SLF001 - have no public name
    torch_module._global_forward_hooks,  # noqa: SLF001 - as above
)
FUNCTION_FILE: Final = str(Path(_TORCH_FOLDER, "autograd", "function.py"))
# What runs a custom Function; in torch 2.14 it leaves no frame.
APPLY: Final = getattr(torch.autograd.Function.apply, "__code__", None)


def is_transparent(kind: type) -> bool:
    """Whether autograd runs again what a Function's forward runs, and differentiates that."""
    code = getattr(getattr(kind, "forward", None), "__code__", None)
    return code is not None and code.co_filename in _NO_GRAD_FORWARDS


_NO_NAMES: Final[Mapping[int, str]] = MappingProxyType({})


def _forwards_of_functions() -> dict[int, CodeType]:
    """The code of every custom Function's forward and of its decorators, by identity.

    Asked of the classes, not of the stack: whether `apply` leaves a frame depends on torch (since
    2.14 it does not), and a decorated forward is not called by it.
    """
    found: dict[int, CodeType] = {}
    pending: list[type] = [torch.autograd.Function]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if is_behind_the_scenes(kind):
            continue  # what torch has compiled is recorded nowhere
        forward: Any = getattr(kind, "forward", None)
        for _ in range(_WRAPPERS):
            if forward is None:
                break
            code = getattr(forward, "__code__", None)
            if code is not None:
                found[id(code)] = code
            forward = getattr(forward, "__wrapped__", None)
    return found


def _typed_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of code that somebody typed: at a prompt, into stdin, after ``-c``."""
    while frame is not None and not frame.f_code.co_filename.startswith(_TYPED):
        frame = frame.f_back
    return frame


def _torchs_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of torch's."""
    while frame is not None and not frame.f_code.co_filename.startswith(_TORCH_FOLDER):
        frame = frame.f_back
    return frame


class _Code(Enum):
    """Whose code runs in a frame."""

    USERS = "the user's"
    SKIPPED = "torch's, Python's or our own"
    NO_GRAD_FORWARD = "the same, and runs without gradients what has some"


_USERS: Final = _Code.USERS
_NO_GRAD_FORWARD: Final = _Code.NO_GRAD_FORWARD


class _Running:
    """A module that is running.

    Attributes:
        module: The module.
        path: What it is called in the outermost one.
        location: The user's line that called it, once somebody has looked for it.
        checkpointed: Whether a function that runs without gradients lies between.
    """

    __slots__ = ("checkpointed", "location", "module", "path")

    def __init__(self, module: torch.nn.Module, path: str) -> None:
        self.module = module
        self.path = path
        self.location: Location | None = None
        self.checkpointed = False


class Places:
    """Follows modules through global forward hooks and finds the user's frame on request.

    Where torch.compile is at work, no hooks: they would be compiled into the programs. The modules
    are then looked for on the stack, which takes longer.
    """

    def __init__(self) -> None:
        self._running: list[_Running] = []
        self._below_root: Mapping[int, str] = _NO_NAMES  # paths of the modules of the first root
        self._names: weakref.WeakKeyDictionary[torch.nn.Module, dict[int, str]] = (
            weakref.WeakKeyDictionary()
        )
        # By identity: the hash of a code object goes through its instructions, every time. The
        # first dictionary keeps the objects, and with them their identity.
        self._seen: dict[int, CodeType] = {}
        self._kinds: dict[int, _Code] = {}
        self._cache: dict[tuple[str, int, int], Location] = {}
        # The same by instruction: a frame has to look for its line.
        self._by_instruction: dict[tuple[str, int, int], Location] = {}
        self._forwards: dict[int, CodeType] = {}
        self._not_forwards: dict[int, CodeType] = {}  # of those called so
        self._defined: object = None  # how many custom Functions there were
        self._by_frames = False
        self._thread = 0
        self.on_root: Callable[[torch.nn.Module], None] | None = None
        self.pinned: Location | None = None  # where the program is, whatever the stack says

    def start(self) -> None:
        """Install the two hooks (removed by `stop`)."""
        self._thread = threading.get_ident()
        at_the_end(self.stop)
        register_module_forward_pre_hook(self._enter)
        register_module_forward_hook(self._leave, always_call=True)

    def stop(self) -> None:
        """Remove the hooks and forget the module stack."""
        # By what they are: an interrupt may have come between a hook and the note of its handle.
        own = (self._enter, self._leave)
        for hooks in _GLOBAL_HOOKS:
            for number in [n for n, hook in list(hooks.items()) if hook in own]:
                torch_module._global_forward_hooks_always_called.pop(number, None)  # noqa: SLF001 - has no public name
                hooks.pop(number, None)
        self._running.clear()
        self._by_frames = False

    def do_without_hooks(self) -> None:
        """From now on look for modules on the stack."""
        self.stop()
        self._by_frames = True

    def _enter(self, module: torch.nn.Module, _args: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        running = self._running
        if not running:
            if self.on_root is not None:
                self.on_root(module)
            self._below_root = self._names.get(module, _NO_NAMES)
        path = self._below_root.get(id(module))
        if path is None:
            root = running[0].module if running else module
            path = self._path(module, root, running[-1].path if running else "")
            self._below_root = self._names.get(root, _NO_NAMES)
        running.append(_Running(module, path))

    def _leave(self, module: torch.nn.Module, _args: Any, _output: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        running = self._running
        if running and running[-1].module is module:
            running.pop()
        # A module whose pre-hook raised leaves no entry; unwind to the one that is leaving.
        elif any(entered.module is module for entered in running):
            while running and running.pop().module is not module:
                pass

    def _path(self, module: torch.nn.Module, root: torch.nn.Module, above: str) -> str:
        names = self._names.get(root)
        if names is None or id(module) not in names:
            names = {
                id(m): name_as_written(n) for n, m in root.named_modules(remove_duplicate=True)
            }
            if next(root.children(), None) is None:
                names[id(root)] = type(root).__name__
            self._names[root] = names
        if id(module) in names:
            return names[id(module)]
        kind = type(module).__name__
        return f"{above}.{kind}" if above else kind

    def _path_by_frames(self, frame: FrameType | None) -> str:
        modules: list[torch.nn.Module] = []
        while frame is not None:
            if frame.f_code is _CALL_OF_MODULE:
                modules.append(frame.f_locals["self"])
            frame = frame.f_back
        above = ""
        for module in reversed(modules):
            above = self._path(module, modules[-1], above)
        return above

    def names(self, tensors: Sequence[torch.Tensor | None]) -> tuple[str, ...]:
        """What tensors are called as parameters of the modules that have run; "" for others."""
        known = {id(p): n for root in self._names for n, p in root.named_parameters()}
        return tuple(known.get(id(x), "") for x in tensors)

    def here(self, above: int = 1) -> tuple[Location, bool]:
        """The current location, and whether something runs without gradients that has some.

        A reentrant checkpoint its function, or a custom Function its forward.

        Args:
            above: So many frames above the caller's are looked at first; those between are ours.
        """
        if self.pinned is not None:
            inside = not torch.is_grad_enabled() and self._forward_above(sys._getframe(above + 1))
            return self.pinned, inside
        start = sys._getframe(above + 1)
        if self._by_frames:
            user, checkpointed, _ = self._users_frame(start, to_module=False)
            return self._location(self._path_by_frames(start), user), checkpointed
        top = self._running[-1] if self._running else None
        module = "" if top is None else top.path
        if not torch.is_grad_enabled() and may_be_in_forward():
            user, checkpointed, _ = self._users_frame(start, to_module=False)
            return self._location(module, user), checkpointed or self._forward_above(user)
        user, checkpointed, in_module = self._users_frame(start, to_module=top is not None)
        if not in_module or top is None:
            return self._location(module, user), checkpointed
        if top.location is None:
            caller, below, _ = self._users_frame(user, to_module=False)
            top.location, top.checkpointed = self._location(module, caller), below
        return top.location, checkpointed or top.checkpointed

    def line(self, frame: FrameType) -> Location:
        """The user's line from some frame on, without the module in whose call it may stand."""
        if self.pinned is not None:
            return self.pinned
        code = frame.f_code
        if (self._kinds.get(id(code)) or self._kind(code)) is not _USERS:
            frame, _, _ = self._users_frame(frame, to_module=False)
        return self._location("", frame)

    def _location(self, module: str, user: FrameType) -> Location:
        """A location, one and the same for a line."""
        code = user.f_code
        instruction = (module, id(code), user.f_lasti)
        location = self._by_instruction.get(instruction)
        if location is None:
            line = (module, id(code), user.f_lineno)
            location = self._cache.get(line)
            if location is None:
                # `_seen` holds the code object, since the walk has come to it.
                location = Location(module, code.co_filename, user.f_lineno, code.co_name)
                self._cache[line] = location
            self._by_instruction[instruction] = location
        return location

    def _users_frame(self, frame: FrameType, *, to_module: bool) -> tuple[FrameType, bool, bool]:
        """The first frame of the user's, or of a call of a module if that comes first.

        Where none is in a file of the user's: what was typed, else (the command line judges a
        function of torch) torch's own line.

        Returns:
            The frame; whether a function that runs without gradients has been passed; whether it
            is the call of a module.
        """
        checkpointed = False
        kinds = self._kinds
        start = frame
        while True:
            code = frame.f_code
            if to_module and code is _CALL_OF_MODULE:
                return frame, checkpointed, True
            kind = kinds.get(id(code)) or self._kind(code)
            if kind is _USERS:
                return frame, checkpointed, False
            if kind is _NO_GRAD_FORWARD:
                checkpointed = True
            above = frame.f_back
            if above is None:
                found = _typed_frame(start) or _torchs_frame(start) or frame
                return found, checkpointed, False
            frame = above

    def in_forward(self) -> bool:
        """Whether something on the stack runs without gradients that has some."""
        return self._forward_above(sys._getframe(2))

    def _forward_above(self, frame: FrameType | None) -> bool:
        while frame is not None:
            code = frame.f_code
            if code is APPLY or (code.co_name == "forward" and self._is_no_grad_forward(code)):
                return True
            frame = frame.f_back
        return False

    def _is_no_grad_forward(self, code: CodeType) -> bool:
        return code.co_filename in _NO_GRAD_FORWARDS or self._is_forward_of_function(code)

    def _kind(self, code: CodeType) -> _Code:
        """Whose code it is, noted for the next time."""
        self._seen[id(code)] = code
        found = _Code.USERS
        if self._is_foreign(code.co_filename) or self._is_forward_of_function(code):
            forward = code.co_name == "forward" and self._is_no_grad_forward(code)
            found = _Code.NO_GRAD_FORWARD if code is APPLY or forward else _Code.SKIPPED
        self._kinds[id(code)] = found
        return found

    def forwards(self) -> dict[int, CodeType]:
        """The code of every custom Function's forward, by identity."""
        defined = functions_defined()
        if defined != self._defined:
            self._forwards, self._not_forwards = _forwards_of_functions(), {}
            self._defined = defined
        return self._forwards

    def _is_forward_of_function(self, code: CodeType) -> bool:
        """Whether code is the forward of a custom Function, which stands where it is applied."""
        if id(code) in self.forwards():
            return True
        if code.co_name != "forward" or id(code) in self._not_forwards:
            return False
        # The classes are many: looked through when there are new ones, and once for each forward,
        # which a class may have been given later.
        self._not_forwards[id(code)] = code
        self._forwards = _forwards_of_functions()
        return id(code) in self._forwards

    @staticmethod
    def _is_foreign(filename: str) -> bool:
        if filename.startswith(_OWN_EXCEPTIONS):
            return False
        if filename.startswith(_PYTHON_FOLDER) and not filename.startswith(_INSTALLED):
            return True
        return filename.startswith((_TORCH_FOLDER, _OWN_FOLDER, *_RUNNERS, "<"))
