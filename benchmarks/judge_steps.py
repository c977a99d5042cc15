"""Train a network of the paper as `clarke reproduce` does, and judge some steps of it only.

`OMP_NUM_THREADS=1 python benchmarks/judge_steps.py vgg11 --data FOLDER --steps 1397,2528` gets to
a step in question without judging those before it. Floating point must repeat: the same machine and
number of threads as in the run that named the step. `--keep FOLDER` keeps weights and batch;
`--checkpoint FILE` starts from what an unfinished run has left (`run0.checkpoint.pt`), or is a file
that `--keep` has made, here or in `clarke reproduce`: then its step alone is judged.

Printed are the verdict, the weights of the mixture if it is one, and the tied windows that matter:
the derivative of the loss at each, and the cosines between their rows where a pair is opposite.
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from clarke import audit
from clarke.capture import Recorder, collect_trace
from clarke.experiments.augment import augment
from clarke.experiments.data import Source, load
from clarke.experiments.scenario import Network, Training
from clarke.experiments.train import first_model, keep_step, steps_per_epoch
from clarke.fast.codes import Coder
from clarke.fast.graph import build_graph
from clarke.fast.layers import POOL, argument_values, as_array, pool_layer, weight_shape
from clarke.fast.pools import Rivals, find_rivals, patches, pool_ties
from clarke.fast.scratch import Scratch
from clarke.kinks import default_registry

_OPPOSITE = -1 + 1e-9


def judge(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, name: str) -> None:
    """Judge one step, leaving its gradient, and print what was found."""
    reports: list[Any] = []
    with audit() as watching:
        watching.subscribe(lambda _step, report: reports.append(report))
        cross_entropy(model(inputs), labels).backward()
    found = watching.steps[-1]
    print(f"{name}: {found.verdict.name} ({found.theorem}), {found.seconds:.0f} s")
    if not found.correct:
        print(f"  {found.reason}")
    weights = getattr(reports[-1].certificate, "weights", ())
    if len(weights) > 1:
        print("  weights of the mixture: " + ", ".join(f"{w:.3g}" for w in weights))
    print_ties(copy.deepcopy(model), inputs, labels)


def print_ties(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Print the tied windows whose elements differ."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(module: str, made: torch.Tensor) -> None:
        made.retain_grad()
        outputs[module] = made

    for module, layer in model.named_modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda _m, _a, made, module=module: keep(module, made))
    with Recorder(default_registry().keeps) as recorder:
        loss = cross_entropy(model(inputs), labels)
        trace = collect_trace(recorder, loss)
    loss.backward()
    graph = build_graph(trace, [e.slot for e in trace.leaves()])
    if graph is None:
        return
    for position, op in enumerate(trace.ops):
        layer = pool_layer(graph, position) if op.name == POOL else None
        ties = None if layer is None else pool_ties(graph, layer, Scratch())
        if layer is None or ties is None or not ties.tied.size:
            continue
        rivals = find_rivals(graph, layer, ties, Coder(0))
        made = outputs.get(op.location.module)
        if rivals is None or not rivals.window.size or made is None or made.grad is None:
            continue
        values, shape = argument_values(graph, layer.conv, 0), weight_shape(graph, layer.conv)
        read = None if values is None else as_array(values)
        if read is None or shape is None:
            continue
        both = [
            patches(graph, layer, read, shape, rivals, p) for p in (rivals.chosen, rivals.rival)
        ]
        print_rows(op.location.module, rivals, both[0] - both[1], made)


def print_rows(module: str, rivals: Rivals, rows: Any, made: torch.Tensor) -> None:
    """Print the rows of one maxpool: where they stand and which are opposite."""
    slopes = made.grad.reshape(-1)[torch.from_numpy(rivals.window)]
    where = [np.unravel_index(int(w), made.shape) for w in rivals.window]
    for number, (place, slope) in enumerate(zip(where, slopes.tolist(), strict=True)):
        image, channel, y, x = (int(i) for i in place)
        differ = np.flatnonzero(rows[number]).size
        print(
            f"  {module}, image {image}, channel {channel}, window ({y}, {x}): derivative of the "
            f"loss {slope:.3g}, patches differ in {differ} of {rows.shape[1]} numbers"
        )
    sizes = np.linalg.norm(rows, axis=1)
    cosines = rows @ rows.T / np.outer(sizes, sizes)
    same = rivals.channel[:, None] == rivals.channel
    for i, j in np.argwhere(np.triu(same & (cosines < _OPPOSITE))):
        print(f"  rows {i + 1} and {j + 1} of {module} are opposite (cosine {cosines[i, j]:.9f})")


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=["vgg11", "vgg11-bn", "resnet18"])
    parser.add_argument("--data", help="folder with CIFAR-10 binary files")
    parser.add_argument("--steps", help="numbers of the steps, from 1, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="start here, not from the first step")
    parser.add_argument("--keep", type=Path, help="folder for weights and batches of the steps")
    given = parser.parse_args()
    training = Training(Network(given.network), seed=given.seed)
    model = first_model(training).train()
    start = None if given.checkpoint is None else torch.load(given.checkpoint, weights_only=True)
    if start is not None and "inputs" in start:
        model.load_state_dict(start["model"])
        judge(model, start["inputs"], start["labels"], given.checkpoint.stem)
        return
    if given.data is None or given.steps is None:
        parser.error("--data and --steps are needed to train")
    wanted = {int(s) for s in given.steps.split(",")}
    images = load(Source.CIFAR10, given.data)
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.SGD(
        model.parameters(), training.rate, training.momentum, weight_decay=training.decay
    )
    first = 0
    if start is not None:
        model.load_state_dict(start["model"])
        optimizer.load_state_dict(start["optimizer"])
        generator.set_state(start["generator"])
        first = start["epoch"]
    step = first * steps_per_epoch(images, training.batch)
    for epoch in range(first, training.epochs):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * training.rate * (1 + math.cos(math.pi * epoch / training.epochs))
        order = torch.randperm(len(images.labels), generator=generator)
        for indices in order.split(training.batch):
            step += 1
            inputs, labels = augment(images.pixels[indices], generator), images.labels[indices]
            optimizer.zero_grad()
            if step not in wanted:
                cross_entropy(model(inputs), labels).backward()
            else:
                if given.keep is not None:
                    keep_step(given.keep, training, step, model, (inputs, labels))
                judge(model, inputs, labels, f"{given.network}-{step}")
                if step == max(wanted):
                    return
            optimizer.step()


if __name__ == "__main__":
    main()
