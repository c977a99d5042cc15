"""What torch.compile was given to compile: a program of torch's functions, to be run as written.

Dynamo draws it from the user's function, before any backend sees it: what the function computes of
tensors, and nothing else that it does. So it may be run beside the user's program, which the
function itself, that may print, count or append to a list, may not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import GraphModule, Node

from clarke.capture.functions import Drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Place = tuple[str, str, int, str]

# Operators that take functions and only run them, with the arguments that follow.
_RUN: Final = frozenset(
    {"wrap", "tag_activation_checkpoint", "wrap_activation_checkpoint", "invoke_subgraph"}
)
_APPLIED: Final = "autograd_function_apply"
_DRAWN: Final = "drawn"
_FRAME: Final = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_NAMES: Final = re.compile(r"[A-Za-z_]\w*|\d+")
_PLAIN: Final = ("torch", "_operator", "operator", "builtins", "math")
_HIDDEN: Final = (
    ("torch._functorch", "torch.func"),
    ("torch._C._functorch", "torch.func"),
    ("torch.autograd", "torch.autograd.grad"),
    ("torch.distributed", "torch.distributed"),
)
_REFUSED_METHODS: Final = frozenset(
    {"backward", "register_hook", "requires_grad_", "set_", "retain_grad", "resize_"}
)
_KNOWN: Final = frozenset({"aten", "prims", "prim", "profiler"})


@dataclass(frozen=True)
class Value:
    """Stands for what step `number` returned."""

    number: int


@dataclass(frozen=True, eq=False)
class Step:
    """One call.

    Attributes:
        method: Call the first argument's method of this name; "" for a function.
        function: What to call otherwise.
        args: With `Value` in the place of results.
        kwargs: Likewise.
        result: The number of its result.
        frees: Numbers of results that nothing needs any more.
        place: Module, below the compiled one; file, line and function, "" where not known.
    """

    method: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: int
    frees: tuple[int, ...]
    place: Place


@dataclass(frozen=True, eq=False)
class Written:
    """A program.

    Attributes:
        inputs: Numbers of its arguments, in order.
        constants: What it holds itself, by number: tensors, and programs that operators run.
        steps: Its calls.
        outputs: What it returns.
        refusal: What of it cannot be run beside the user's program; "" for nothing.
        applies: Custom Functions that it applies.
    """

    inputs: tuple[int, ...]
    constants: dict[int, Any]
    steps: tuple[Step, ...]
    outputs: Any
    refusal: str
    applies: tuple[Drawn, ...]

    def run(self, args: Sequence[Any], at: Callable[[Place], object]) -> Any:
        """Run it; `at` is told where, before each call."""
        values: dict[int, Any] = dict(self.constants)
        values.update(zip(self.inputs, args, strict=True))
        for step in self.steps:
            given = [_filled(a, values) for a in step.args]
            named = {k: _filled(v, values) for k, v in step.kwargs.items()}
            at(step.place)
            values[step.result] = (
                getattr(given[0], step.method)(*given[1:], **named)
                if step.method
                else _called(step.function, given, named, at)
            )
            del given, named
            for number in step.frees:
                del values[number]
        return _filled(self.outputs, values)


def _called(function: Any, args: list[Any], kwargs: dict[str, Any], at: Any) -> Any:
    """A function's result; of an operator that runs a program, that program's."""
    if not isinstance(function, torch._ops.HigherOrderOperator):
        return function(*args, **kwargs)
    if function.name() == "cond":
        taken = args[1] if bool(args[0]) else args[2]
        return taken.run(args[3] if len(args) > 3 else (), at)
    body = args[0]
    if function.name() == _APPLIED:
        return _function(body, args[1], kwargs, at).apply(*args[2:])
    rest = args[1:]
    if function.name() == "invoke_subgraph":
        rest = args[2:]  # behind a name
    return body.run(rest, at)


def _function(
    forward: Written, backward: Written, kwargs: dict[str, Any], at: Any
) -> type[torch.autograd.Function]:
    """The custom Function that two of dynamo's graphs were drawn from."""
    constant: Sequence[int] = kwargs["non_differentiable_idx"]
    forward = _without_gradients(forward)

    class Function(torch.autograd.Function):
        """Stands for one whose own name is not known, but for where it was drawn."""

        drawn = kwargs.get(_DRAWN)

        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            outputs, ctx.kept = forward.run(args, at)
            ctx.mark_non_differentiable(*[outputs[i] for i in constant])
            return outputs

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return backward.run((*gradients, *ctx.kept), lambda _: None)

    return Function


def _without_gradients(forward: Written) -> Written:
    """A forward that leaves it to autograd to switch gradients off around it, to its very end."""
    modes = [s for s in forward.steps if s.function is torch._C._set_grad_enabled]  # noqa: SLF001 - as dynamo draws it
    if len(modes) < 2 or (modes[0].args, modes[-1].args) != ((False,), (True,)):
        return forward
    ends = (modes[0], modes[-1])
    return replace(forward, steps=tuple(s for s in forward.steps if s not in ends))


def written(graph: GraphModule) -> Written:
    """The program that a graph of dynamo's stands for; the graph is not held."""
    numbers: dict[Node, int] = {n: i for i, n in enumerate(graph.graph.nodes)}
    last: dict[int, int] = {}
    inputs: list[int] = []
    constants: dict[int, Any] = {}
    outputs: Any = ()
    refusal = ""
    applies: list[Drawn] = []
    drawn: dict[Node, dict[str, Drawn]] = {}
    calls: list[Node] = []

    def named(value: Any) -> Any:
        stand_in: Any = lambda n: Value(numbers[n])  # noqa: E731 - torch types results as its own
        return torch.fx.map_arg(value, stand_in)

    for node in graph.graph.nodes:
        number = numbers[node]
        for used in node.all_input_nodes:
            last[numbers[used]] = number
        if node.op == "placeholder":
            inputs.append(number)
        elif node.op == "get_attr":
            found = _attribute(graph, str(node.target))
            if isinstance(found, GraphModule):
                found = written(found)
                refusal = refusal or found.refusal
                applies += found.applies
            constants[number] = found
        elif node.op == "output":
            outputs = named(node.args[0])
        else:
            refusal = refusal or _why_not(node)
            if _is_applied(node):
                drawn[node] = {_DRAWN: _drawn(graph, node)}
                applies += drawn[node].values()
            calls.append(node)
    made = {numbers[n] for n in calls}
    frees: dict[int, list[int]] = {}
    for used, by in last.items():
        frees.setdefault(by, []).append(used)
    steps = tuple(
        Step(
            method=str(n.target) if n.op == "call_method" else "",
            function=None if n.op == "call_method" else n.target,
            args=named(n.args),
            kwargs={**named(n.kwargs), **drawn.get(n, {})},
            result=numbers[n],
            frees=tuple(
                u
                for u in (
                    *frees.get(numbers[n], ()),
                    *(() if numbers[n] in last else (numbers[n],)),
                )
                if u in made
            ),
            place=_place(n),
        )
        for n in calls
    )
    return Written(tuple(inputs), constants, steps, outputs, refusal, tuple(applies))


def _is_applied(node: Node) -> bool:
    target: Any = node.target
    return isinstance(target, torch._ops.HigherOrderOperator) and target.name() == _APPLIED


def _drawn(graph: GraphModule, node: Node) -> Drawn:
    """Where the two parts of a custom Function stand, below where it was applied."""
    above = set(_users(node))
    forward, backward = (
        frozenset(
            (file, int(line))
            for inner in _attribute(graph, str(part.target)).graph.nodes  # type: ignore[union-attr]
            for file, line, function in _users(inner)
            if (file, line, function) not in above
        )
        for part in node.args[:2]
    )
    return Drawn(forward, backward)


def _users(node: Node) -> list[tuple[str, str, str]]:
    """The frames of the user's code that a call was drawn from."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    return [f for f in frames if not _is_torchs(f[0])]


def _attribute(graph: GraphModule, target: str) -> Any:
    found: Any = graph
    for name in target.split("."):
        found = getattr(found, name)
    return found


def _why_not(node: Node) -> str:
    """What a call does that must not be done twice, or cannot be followed; "" for nothing."""
    if node.op == "call_module":
        return f"the module {node.target}, which torch.compile has not looked into"
    if node.op == "call_method":
        return f"{node.target}()" if node.target in _REFUSED_METHODS else ""
    target: Any = node.target
    if isinstance(target, torch._ops.HigherOrderOperator):
        name = str(target.name())
        if name == _APPLIED:
            return "mark_dirty() in a custom Function" if node.kwargs.get("dirty_idx") else ""
        known = name in _RUN or (name == "cond" and not isinstance(node.args[0], bool))
        return "" if known else f"{name}, a higher-order operator"
    if isinstance(target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        name = str(target)
        return "" if name.partition(".")[0] in _KNOWN else f"{name}, a custom operator"
    module = str(getattr(target, "__module__", None) or "builtins")
    hidden = next((told for start, told in _HIDDEN if module.startswith(start)), "")
    if hidden:
        return hidden
    name = getattr(target, "__name__", str(target))
    if module.startswith("torch._dynamo") or module.partition(".")[0] not in _PLAIN:
        return f"{name}, which torch.compile has not looked into"
    return ""


def _place(node: Node) -> Place:
    """Where the user's code stands that a call was drawn from; no file where that is unknown."""
    users = _users(node)
    file, line, function = users[-1] if users else ("", 0, "")
    return _module(node), file, int(line), function


def _is_torchs(file: str) -> bool:
    return file.startswith(_TORCH_FOLDER)


_TORCH_FOLDER: Final = torch.__path__[0]


def _module(node: Node) -> str:
    """The path of the running module, below the first one."""
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    if not stack:
        return ""
    first, found = stack[0], stack[-1]
    below = found[len(first) :] if found.startswith(first) else ""
    names = _NAMES.findall(below)
    return ".".join(n for n in names if n not in ("_modules", "_orig_mod"))


def _filled(value: Any, values: dict[int, Any]) -> Any:
    if isinstance(value, Value):
        return values[value.number]
    if isinstance(value, (list, tuple)):
        found = [_filled(v, values) for v in value]
        if isinstance(value, list):
            return found
        return type(value)(*found) if hasattr(value, "_fields") else tuple(found)
    if isinstance(value, dict):
        return {k: _filled(v, values) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(_filled(v, values) for v in (value.start, value.stop, value.step)))
    return value


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """All tensors among nested results."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
