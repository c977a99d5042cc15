"""How well `clarke.hunt` finds: known faults and their right twins, planted faults, none.

`python benchmarks/hunting.py faults`, `planted COUNT`, `none COUNT`. Times are of the processor.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import clarke
from clarke.hunt.model import in_words
from hunt.test_planted import example, program
from reference.faults import CASES


def timed(function: Any, inputs: Any) -> tuple[clarke.Hunt, float]:
    """A hunt without a time limit, and the processor's seconds that it took."""
    began = time.process_time()
    found = clarke.hunt(function, inputs, seconds=None)
    return found, time.process_time() - began


def faults(names: list[str]) -> None:
    """Every fault of the reference list, and its right twin."""
    spent = []
    for case in CASES:
        if names and case.name not in names:
            continue
        wrong, seconds = timed(case.wrong, case.example())
        right, also = timed(case.right, case.example())
        spent += [seconds, also]
        places = "; ".join(
            f"{f.report.verdict.name} " + " ".join(in_words(x) for x in f.inputs)
            for f in wrong.finds
        )
        kept = "FALSE: " + str(right) if right else f"nothing ({also:.1f} s)"
        print(f"{case.name:18} {seconds:5.1f} s  twin: {kept}  {places or 'MISSED'}", flush=True)
    print(f"median {median(spent):.1f} s, most {max(spent):.1f} s")


def planted(count: int, first: int = 0) -> None:
    """Random programs with one fault on a kink of codimension 1 and 2."""
    for codimension in (1, 2):
        outcomes = [
            timed(program(seed, codimension), example(seed)) for seed in range(first, first + count)
        ]
        found, spent = [bool(f) for f, _ in outcomes], [s for _, s in outcomes]
        print(
            f"codimension {codimension}: {sum(found)} of {count} found, median "
            f"{median(spent):.1f} s, most {max(spent):.1f} s; missed "
            f"{[first + i for i, f in enumerate(found) if not f]}",
            flush=True,
        )


def none(count: int, first: int = 0) -> None:
    """Random programs without a fault."""
    spent = []
    for seed in range(first, first + count):
        found, seconds = timed(program(seed, 0), example(seed))
        spent.append(seconds)
        if found:
            print(f"FALSE seed {seed}\n{found}", flush=True)
    print(f"none: {count} programs, median {median(spent):.1f} s, most {max(spent):.1f} s")


if __name__ == "__main__":
    what, *more = sys.argv[1:]
    if what == "faults":
        faults(more)
    else:
        {"planted": planted, "none": none}[what](*(int(m) for m in more))
