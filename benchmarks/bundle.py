"""The bundle method of docs/subdifferential.md, drawn: ``python benchmarks/bundle.py``.

Runs the code of that section as it stands, and writes docs/images/bundle.png.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import clarke

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Run the section's code, and draw the values that it reached."""
    page = (DOCS / "subdifferential.md").read_text("utf-8")
    section = page[page.index("## A bundle method") :]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    if code is None:
        raise SystemExit("docs/subdifferential.md has no code for a bundle method.")
    names: dict[str, Any] = {"torch": torch, "clarke": clarke}
    exec(code[1], names)  # noqa: S102 - the project's own page
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    least = names["seen"][-1]
    for key, label in (("one_each", "autograd's gradient"), ("seen", "all vertices of the set")):
        values = [v - least + 1e-2 for v in names[key]]
        axes.semilogy(range(len(values)), values, marker="o", markersize=3, label=label)
    axes.set_xlabel("round")
    axes.set_ylabel("value above the minimum + 0.01")
    axes.legend(frameon=False)
    figure.savefig(DOCS / "images" / "bundle.png", dpi=110)


if __name__ == "__main__":
    main()
