"""Pictures of the page and of the terminal for docs/images: `make screenshots`, with Chromium."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from browser import BROWSER, FLAGS  # a neighbour of this script
from PIL import Image
from rich.console import Console

from clarke.report.runs import read_run
from clarke.report.runs.page import run_page
from clarke.report.runs.terminal import run_view

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
RUNS = {"clean": 1500, "wrong": 900, "nan": 900, "killed": 800, "long": 1750, "distributed": 900}
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
PICTURED = (*FLAGS, "--hide-scrollbars", "--run-all-compositor-stages-before-draw")
DARK = "--blink-settings=preferredColorScheme=0"


def main(only: Sequence[str] = ()) -> None:
    """Run the scripts (or those named), make their pages, and take the pictures."""
    browser = BROWSER
    if browser is None:
        sys.exit("No Chromium is installed; on Debian: apt install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run, height in RUNS.items():
            if only and run not in only:
                continue
            launcher = TORCHRUN if run == "distributed" else ()
            words = [
                sys.executable,
                "-m",
                *launcher,
                "clarke",
                "run",
                "--seconds",
                "30",
                "--out",
                run,
            ]
            script = HERE / "shown" / f"{run}.py"
            shutil.copy(script, folder)
            subprocess.run([*words, script.name], cwd=folder, capture_output=True, check=False)
            found = read_run(folder / run)
            page = folder / f"{run}.html"
            page.write_text(run_page(found), encoding="utf-8")
            take(browser, page, IMAGES / f"page-{run}.png", (1100, height))
            if run == "wrong":
                take(browser, page, IMAGES / "page-wrong-dark.png", (1100, height), DARK)
                frame = folder / "frame.html"
                frame.write_text(
                    f'<body style="margin:0"><iframe src="{page.name}" style="border:0" '
                    'width="400" height="1150"></iframe>'
                )
                take(browser, frame, IMAGES / "page-wrong-narrow.png", (500, 1150), crop=400)
            if run in ("wrong", "nan"):
                console = Console(record=True, width=80, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
                console.print(f"$ clarke run {run}.py\n")
                console.print(run_view(found))
                told = folder / "terminal.html"
                told.write_text(
                    console.export_html(inline_styles=True).replace(
                        "<body>", '<body style="margin: 14px; zoom: 1">'
                    )
                )
                take(browser, told, IMAGES / f"terminal-{run}.png", (860, 560))


def take(
    browser: str, page: Path, image: Path, size: tuple[int, int], *flags: str, crop: int = 0
) -> None:
    """A picture of a page, in few colours."""
    width, height = size
    profile = page.parent / "profile"
    subprocess.run(
        [
            browser,
            *PICTURED,
            *flags,
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--screenshot={image}",
            page.as_uri(),
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    picture = Image.open(image).convert("RGB")
    if crop:
        picture = picture.crop((0, 0, crop, height))
    picture.quantize(255, dither=Image.Dither.NONE).save(image, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
