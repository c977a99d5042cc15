"""Run folders made by hand, for tests of what reads and shows them."""

import random

from clarke.report import KinkSummary
from clarke.report.runs import CulpritRecord, Picture, RunWriter, StepRecord
from clarke.verdict import Verdict

LAYERS = ("features.1", "features.3", "features.4", "classifier.1")
WRONG = Picture((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), (0.5, 0.5))


def steps(count, *, wrong=(), undecided=(), skipped=1, choice="piece 0"):
    """Steps of a small convolutional network: a ReLU touched often, a maxpool now and then."""
    rng = random.Random(3)  # noqa: S311 - numbers to draw, no secret
    for n in range(1, count + 1):
        if (n - 1) % skipped:
            yield StepRecord(n, None, file=__file__, line=4)
            continue
        kinks = tuple(
            KinkSummary(
                "relu" if i != 2 else "max_pool2d_with_indices",
                layer,
                __file__,
                8 + i,
                100_000,
                rng.randrange(30_000 // (i + 1)),
                rng.randrange(1 + 6 // (i + 1)),
                choice,
            )
            for i, layer in enumerate(LAYERS)
        )
        verdict = Verdict.BOULIGAND if sum(k.relevant for k in kinks) else Verdict.SMOOTH
        culprits, picture = (), None
        if n in wrong:
            verdict, picture = Verdict.NOT_CLARKE, WRONG
            culprits = tuple(
                CulpritRecord("relu", LAYERS[0], __file__, line, "contradicts the other")
                for line in (8, 9)
            )
        elif n in undecided:
            verdict = Verdict.UNDECIDED
            culprits = (CulpritRecord("my_op", "", __file__, 20, "unknown operation"),)
        yield StepRecord(
            n, verdict, verdict.value, "witness", kinks, culprits, 0.003, __file__, 4,
            group=n, joint=verdict, picture=picture,
        )  # fmt: skip


def make_run(folder, count=40, *, finish=True, settings=None, **options):
    """Write a run folder and return its steps."""
    made = list(steps(count, **options))
    writer = RunWriter(folder, {"program": "train.py", "arguments": ["--lr", "0.1"],
                                "torch": "2.13.0", **(settings or {})})  # fmt: skip
    for step in made:
        writer.write(step)
    if finish:
        writer.finish({"ended": "finished", "seconds": 1.5})
    return made
