"""Which of PyTorch's own differentiable operations clarke can judge, by its test database."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from clarke.capture import Recorder, collect_trace
from clarke.errors import ClarkeError, InputError
from clarke.kinks import default_registry
from clarke.steering import analyse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clarke.kinks import Registry

_SAMPLES = 8


@dataclass(frozen=True)
class Coverage:
    """One entry of PyTorch's operator database.

    Attributes:
        name: Its name, with the variant.
        samples: How many of its sample calls ran.
        unknown: Operators in them that clarke does not know, without repeats.
    """

    name: str
    samples: int
    unknown: tuple[str, ...]

    @property
    def covered(self) -> bool:
        """Whether every operator of every sample is known."""
        return self.samples > 0 and not self.unknown


def coverage(names: Sequence[str] | None = None) -> tuple[Coverage, ...]:
    """Run the sample calls of every differentiable operation and see which operators they use.

    Args:
        names: Only operations with these names.

    Raises:
        InputError: PyTorch's test database cannot be imported.
    """
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as error:
        raise InputError(
            f"PyTorch's operator database needs a package that is not installed: {error}. "
            "Install it, for example with `pip install expecttest`."
        ) from error
    registry = default_registry()
    found = []
    for op in op_db:
        if not op.supports_autograd or torch.float64 not in op.supported_dtypes("cpu"):
            continue
        name = f"{op.name}.{op.variant_test_name}" if op.variant_test_name else str(op.name)
        if names is None or op.name in names:
            found.append(_examine(op, name, registry))
    return tuple(found)


def _examine(op: Any, name: str, registry: Registry) -> Coverage:
    ran, unknown = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, sample in enumerate(_samples(op)):
            if number == _SAMPLES:
                break
            try:
                unknown += _unknown(op, sample, registry)
            except (ClarkeError, RuntimeError, NotImplementedError):
                continue
            ran += 1
    return Coverage(name, ran, tuple(dict.fromkeys(unknown)))


def _samples(op: Any) -> Iterator[Any]:
    yield from op.sample_inputs("cpu", torch.float64, requires_grad=True)


def _unknown(op: Any, sample: Any, registry: Registry) -> list[str]:
    recorder = Recorder(registry.keeps)
    with recorder:
        out = op(sample.input, *sample.args, **sample.kwargs)
        results = [
            t
            for t in pytree.tree_leaves(out)
            if isinstance(t, torch.Tensor) and t.requires_grad and not t.is_leaf
            if t.layout == torch.strided
        ]
        recorder.paused = True
    found: list[str] = []
    for result in results:
        analysis = analyse(collect_trace(recorder, result), registry)
        found += [o.name for o in analysis.unknown if o.differentiated]
    return found


def coverage_page(found: Sequence[Coverage], version: str) -> str:
    """The share that is covered, and the rest by name, as Markdown."""
    covered = sum(c.covered for c in found)
    rest = [
        f"- `{c.name}`: {', '.join(f'`{u}`' for u in c.unknown) or 'no sample ran'}"
        for c in found
        if not c.covered
    ]
    share = covered / max(len(found), 1)
    return "\n".join(
        (
            "# Which operations clarke knows",
            "",
            "Written by `clarke ops --coverage --markdown > docs/ops-coverage.md`.",
            f"PyTorch's own test database (torch {version}) has {len(found)}",
            f"differentiable entries in float64; of each, up to {_SAMPLES} sample calls were run.",
            f"In {covered} of them ({share:.1%}) every operator is known. Where one is not, clarke",
            "says UNDECIDED and names it. These are:",
            "",
            *rest,
            "",
        )
    )
