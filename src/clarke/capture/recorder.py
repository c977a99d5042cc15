"""A dispatch mode that writes down what runs. It records and judges nothing."""

from __future__ import annotations

import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clarke.capture.applied import Application, Beside, running
from clarke.capture.arguments import gather_tensors, tensors_among
from clarke.capture.aside import Aside
from clarke.capture.book import Concern, below_autograd
from clarke.capture.deferred import Copy, View
from clarke.capture.functions import running_function
from clarke.capture.keeping import EarlyLook, Keeping
from clarke.capture.live import Node, Read, Slot
from clarke.capture.operators import Operator, Operators
from clarke.capture.places import Places
from clarke.capture.reading import writers_before
from clarke.capture.saving import saves_otherwise
from clarke.capture.signs import ZeroFinder
from clarke.capture.trace import Keep
from clarke.torch_others import (
    computes_itself,
    is_looked_at,
    modes_below,
    put_below_others,
)
from clarke.torch_private import (
    leave_mode,
    may_be_in_forward,
    mode_flags,
    never_trace,
    saved_tensors_hooks,
    tracing_graph,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from clarke.capture.functions import DeclaredFunction
    from clarke.capture.trace import Location
    from clarke.compiled import Compiled


_DETACH = torch.ops.aten.detach.default
_ALIAS = torch.ops.aten.alias.default
_SCALAR = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001 - has no public name
# Looked up once: every operation of the program asks them.
_inferring: Final = torch.is_inference_mode_enabled
_differentiating: Final = torch.is_grad_enabled


class Recorder(Keeping, TorchDispatchMode):
    """Records the operations that run inside the ``with`` block.

    Args:
        keep: Says for an operator overload what must be kept of the values it reads; or what
            an earlier recorder knew of operators.
        functions: Custom Functions that are recorded as if they were operators.
        places: What an earlier recorder found out about the user's code, to go on with.
        compiled: Compiled loops, used on large tensors; None to do without.
        early: Called with the record of an operation whose values are kept, with what it reads and
            what it returned, while these are in the processor's caches. What it returns is kept
            with them, for whoever judges later.

    The record grows as nodes that are held by the tensors they made, so it is freed with them.
    Nothing is recorded while gradients are switched off, except that tensors computed there are
    remembered as detached.
    """

    def __init__(
        self,
        keep: Callable[[Any], Keep] | Operators,
        functions: Mapping[type, DeclaredFunction] = MappingProxyType({}),
        *,
        places: Places | None = None,
        compiled: Compiled | None = None,
        early: EarlyLook | None = None,
    ) -> None:
        operators = keep if isinstance(keep, Operators) else Operators(keep)
        super().__init__(operators, places or Places(), functions)
        self._zeros = ZeroFinder(compiled)
        self._early = early
        self._application: tuple[object, Application] | None = None
        self.saw_inference = False
        self.rests = False  # it is not among the modes
        self._flags: tuple[bool, ...] = ()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # The default wraps the handler in a dynamo guard, which costs more than the handler.
        return False

    # A program under torch.compile runs as it would without; operators that take functions too.
    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Asked by dynamo: whether programs are compiled as if nobody watched."""
        return True

    def __enter__(self) -> Self:
        never_trace(Recorder.__torch_dispatch__, calls_too=True)
        self.places.start()
        self._flags = mode_flags()
        try:
            super().__enter__()
            # Below the user's own modes: they see what the program does, and nothing of clarke's.
            put_below_others(self, Recorder)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Record nothing any more; also where that has been done, or was never needed."""
        leave_mode(self, self._flags)
        self.places.stop()

    def aside(self) -> Aside:
        """Record nothing meanwhile; on top of the modes, step off, so that nothing goes through."""
        return Aside(self)

    def note_read(self, tensor: torch.Tensor) -> None:
        """The values of a tensor go into Python, unseen by the dispatcher."""
        # What a declared Function's forward reads is part of what was declared.
        if not (self.paused or (self._functions and running_function(self._functions))):
            self._note_read(tensor, self.places.here()[0])

    # ---------------------------------------------------------------- the handler

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused or self.stands_aside or (types and any(map(computes_itself, types))):
            return self._passed(func, args, kwargs)
        try:
            operator = self._operators.known.get(id(func))
            if operator is None or _inferring() or tracing_graph() is not None or modes_below():
                operator = self._watched_operator(func)
                if operator is None:
                    return func(*args, **kwargs)
            if operator.plain and not kwargs:
                return self._plainly(operator, args)
            if operator.tensorless:
                return func(*args, **kwargs)
            if func is _DETACH and not below_autograd():
                copied = self._copy_of(args[0])
                if copied is not None:
                    out = func(*args)
                    self._slots.set(out, copied)
                    return out
            tensors = (
                tensors_among(args, kwargs)
                if operator.lists or (kwargs and operator.tensors_named)
                else [a for a in args if isinstance(a, torch.Tensor)]
            )
            if tensors and tensors[0].is_nested:
                return self._passed(func, args, kwargs)
            concern = self._concern(tensors)
            written: list[torch.Tensor] = []
            if operator.written_names:
                written = self._written_by(operator, args, kwargs)
                if concern is not Concern.GRADIENT or (
                    written and self._updates_constants(tensors, written)
                ):
                    self.note_writes(written, cut=self._writes_cut(concern, tensors, written))
                    return func(*args, **kwargs)
            elif concern is Concern.NONE or (not operator.reads and self._is_lost(tensors)):
                return func(*args, **kwargs)
            return self._generally(operator, args, kwargs, tensors, written)
        except Exception as error:  # noqa: BLE001 - no failure here may reach the program
            return self._rescued(error, func, args, kwargs)

    def _plainly(self, operator: Operator, args: tuple[Any, ...]) -> Any:
        """Most operations: nothing is written, kept or given by name, and tensors come singly."""
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        if tensors and tensors[0].is_nested:
            return self._passed(operator.func, args, {})
        if self._concern(tensors) is Concern.NONE or self._is_lost(tensors):
            return operator.func(*args)
        if operator.views and self.epoch and self._makes_constants():
            out = operator.func(*args)
            self.count += 1
            self._slots.set(out, View(operator.func, args, self.count, self.epoch))
            return out
        if self._application is not None or not _differentiating():
            return self._generally(operator, args, {}, tensors, [])
        location, self._inside = self.places.here(2)
        if self._inside:
            return self._generally(operator, args, {}, tensors, [])
        self.count += 1
        node = Node(self.count, operator.func, location)
        self._derived_from = ()
        node.varied = self._operators.positions(self._read_singly(node, args))
        self._applied = None
        if node.differentiated and saved_tensors_hooks() is not None and saves_otherwise():
            node.resaved = True
        masked = self._note_inputs(node, operator)
        try:
            out = operator.run(*args)
        except Exception as error:
            self._raised = error
            raise
        if isinstance(out, torch.Tensor):
            node.outputs = (self._made(node, operator, out, masked=masked, virtual=False).number,)
        else:
            self._bind_outputs(node, operator, out, [], masked=masked, virtual=False, keeps=False)
        return out

    def _generally(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[torch.Tensor],
        written: list[torch.Tensor],
    ) -> Any:
        """Any operation that has to do with a gradient.

        Without writes, also a comparison of what was cut off, which may stand at a tie.
        """
        func = operator.func
        location, application = self._here(func)
        if operator.reads and self._note_reads(operator, tensors, location, application):
            return func(*args, **kwargs)
        if not (self._inside or _differentiating()):
            return self._run_stopped(func, args, kwargs, written, location)
        return self._record(operator, args, kwargs, written, location, application)

    def _copy_of(self, tensor: torch.Tensor) -> Copy | None:
        """What stands for a copy of a result's, made by autograd itself or as ``.data``.

        None where more than that may have to be said of it.
        """
        entry = self._slots.entries.get(id(tensor)) if tensor.requires_grad else None
        slot: Any = entry.value if entry is not None and entry() is tensor else None
        made_by = slot.producer if type(slot) is Slot else None
        if made_by is None or not made_by.differentiated or slot.storage.writers:
            return None
        if slot.virtual or slot.masked or slot.stopped or tensor.is_leaf:
            return None
        if self._application is not None or may_be_in_forward() or not _differentiating():
            return None
        location, inside = self.places.here(2)
        if inside or saved_tensors_hooks() is not None:
            return None
        self.count += 1
        return Copy(slot, self.count, self.epoch, location)

    def _written_by(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[torch.Tensor]:
        written: list[torch.Tensor] = []
        gather_tensors((args[i] for i in operator.written if i < len(args)), written)
        gather_tensors((kwargs[n] for n in operator.written_names if n in kwargs), written)
        if not (self.epoch or operator.overwrites):
            self._note_rewritten(written)
        return written

    def _watched_operator(self, func: Any) -> Operator | None:
        """What is known of an operator; None where nothing can be recorded, and notes that."""
        if _inferring():
            self.saw_inference = True
            return None
        # torch.jit.trace looks at the program; an operator that takes functions runs them apart.
        if tracing_graph() is not None or not hasattr(func, "_schema") or is_looked_at():
            return None
        return self._operators.of(func)

    def _here(self, func: Any) -> tuple[Location, Application | None]:
        """Where an operation runs, and the custom Function in whose forward it does."""
        location, self._inside = self.places.here(3)
        if self._inside:
            return location, self._running(location)
        if (func is _DETACH or self._application is not None) and may_be_in_forward():
            self._inside = self.places.in_forward()  # which may switch gradients on
            return location, self._running(location) if self._inside else None
        return location, None

    def _running(self, location: Location) -> Application | None:
        """The custom Function in whose forward the program is, if its parts are recorded."""
        found = running(self._functions.keys(), self.places.forwards())
        if isinstance(found, Beside):
            self._inside = found is Beside.PROGRAM
            return None
        kind, args, run = found
        if self._application is not None and self._application[0] is run:
            return self._application[1]
        application = Application(kind, args, location)
        self._application = (run, application)
        for position, value in enumerate(args):
            if isinstance(value, torch.Tensor) and (value.requires_grad or self._is_marked(value)):
                application.given[position] = self._read(value, location)
        return application

    def _note_reads(
        self,
        operator: Operator,
        tensors: list[torch.Tensor],
        location: Location,
        application: Application | None,
    ) -> bool:
        """Numbers, or how many there are of a kind; of masks the operations tell that later.

        Returns whether nothing else is to be noted.
        """
        for tensor in tensors:
            if operator.func is _SCALAR or tensor.is_floating_point():
                self._note_read(tensor, location)
            if application is not None and tensor.is_floating_point():
                application.reads.append(location)
        return operator.func is _SCALAR

    def _record(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: list[torch.Tensor],
        location: Location,
        application: Application | None,
    ) -> Any:
        self.count += 1
        func = operator.func
        # Where gradients are off anyway, a detach cuts nothing off.
        passes = application is not None and func is _DETACH
        node = Node(self.count, _ALIAS if passes else func, location)
        whole = operator.casts and self._are_whole(args[0], operator.dtype(kwargs))
        self._derived_from = ()
        if operator.differentiates:
            self._derived_from = tuple(map(self._slot, tensors_among(args, kwargs)))
        singly = not (kwargs or operator.lists)
        node.varied = self._operators.positions(
            self._read_singly(node, args) if singly else self._read_arguments(node, args, kwargs)
        )
        self._applied = None
        if application is not None:
            node.within = application
        if node.differentiated and saved_tensors_hooks() is not None and saves_otherwise():
            node.resaved = True
        masked = self._note_inputs(node, operator)
        for tensor in written:
            self.protect(tensor)
        virtual = self._inside and node.differentiated and (passes or not operator.cuts)
        if operator.keep is not Keep.NOTHING:
            return self._keep(
                node, operator, args, kwargs, written, masked=masked, virtual=virtual, whole=whole
            )
        try:
            out = operator.run(*args, **kwargs)
        except Exception as error:
            self._raised = error
            raise
        if written or not isinstance(out, torch.Tensor):
            self._bind_outputs(
                node, operator, out, written, masked=masked, virtual=virtual, keeps=False
            )
        else:
            slot = self._made(node, operator, out, masked=masked, virtual=virtual)
            node.outputs = (slot.number,)
        return out

    def _note_inputs(self, node: Node, operator: Operator) -> bool:
        """Note what is special of what an operation reads; returns whether some is masked."""
        masked = after_writes = False
        for slot in node.inputs:
            if slot.masked:
                masked = True
            if slot.stopped:
                node.reads_stopped = True
            if slot.storage.writers:
                after_writes = True
        if after_writes:
            node.writers_before = writers_before(node.inputs)
        if masked and operator.counts:
            # The number of results may go into Python unseen.
            self.reads += [
                Read(self.count, weakref.ref(s), s, node.location, s.number, shape=True)
                for s in node.inputs
                if s.masked and s.dtype == torch.bool
            ]
        return masked
