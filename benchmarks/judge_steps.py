"""Train a network of the paper as `clarke reproduce` does, and judge some steps of it only.

`OMP_NUM_THREADS=1 python benchmarks/judge_steps.py vgg11 --data FOLDER --steps 1397,2528` gets to
a step in question without judging those before it. Floating point must repeat: the same machine and
number of threads as in the run that named the step. `--keep FOLDER` keeps weights and batch.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

from clarke import audit
from clarke.experiments.augment import augment
from clarke.experiments.data import Source, load
from clarke.experiments.scenario import Network, Training
from clarke.experiments.train import first_model


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=["vgg11", "vgg11-bn", "resnet18"])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 binary files")
    parser.add_argument("--steps", required=True, help="numbers of the steps, from 1, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="folder to save weights and batch of the steps in"
    )
    given = parser.parse_args()
    wanted = {int(s) for s in given.steps.split(",")}
    images = load(Source.CIFAR10, given.data)
    training = Training(Network(given.network), seed=given.seed)
    model = first_model(training).train()
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.rate,
        momentum=training.momentum,
        weight_decay=training.decay,
    )
    step = 0
    for epoch in range(training.epochs):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * training.rate * (1 + math.cos(math.pi * epoch / training.epochs))
        order = torch.randperm(len(images.labels), generator=generator)
        for indices in order.split(training.batch):
            step += 1
            inputs, labels = augment(images.pixels[indices], generator), images.labels[indices]
            optimizer.zero_grad()
            if step in wanted:
                if given.keep is not None:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    torch.save(
                        {"model": model.state_dict(), "inputs": inputs, "labels": labels},
                        given.keep / f"{given.network}-{step}.pt",
                    )
                with audit() as watching:
                    cross_entropy(model(inputs), labels).backward()
                found = watching.steps[-1]
                relevant = sum(k.relevant or 0 for k in found.kinks)
                Console().print(
                    f"{given.network}, step {step}: {found.verdict.name} ({found.theorem}), "
                    f"{relevant} relevant kinks, {found.seconds:.0f} s"
                )
                if found.reason and not found.correct:
                    print(found.reason)
                if step == max(wanted):
                    return
            else:
                cross_entropy(model(inputs), labels).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
