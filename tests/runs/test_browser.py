"""The page in a real browser: it draws, its filters work, it fits, and nothing goes wrong."""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from clarke.report import KinkSummary
from clarke.report.runs import RunWriter, StepRecord, read_run
from clarke.report.runs.compare import compare, comparison_page
from clarke.report.runs.page import run_page
from clarke.verdict import Verdict

_STARTED = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "browser.py"))
BROWSER = _STARTED["BROWSER"]
FLAGS = (*_STARTED["FLAGS"], "--enable-logging=stderr")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")

# Answers in the page's own text what a person would look for.
PROBE = """
<script>
addEventListener("load", () => {
  const visible = (n) => n.getClientRects().length > 0;
  const shown = (s) => [...document.querySelectorAll(s)].filter(visible).length;
  const press = (v) => document.querySelector(`button[data-verdict=${v}]`).click();
  const colour = (n, p) => getComputedStyle(n)[p];
  const out = {};
  out.drawn = document.documentElement.dataset.drawn || "";
  out.columns = document.querySelectorAll("#timeline g rect").length;
  out.lines = document.querySelectorAll("#kinks polyline").length;
  out.dots = document.querySelectorAll("#kinks circle").length;
  out.levels = [...document.querySelectorAll("#kinks .level")].map((t) => t.textContent);
  out.cells = document.querySelectorAll("#heat rect").length;
  out.rows = shown(".line, tbody tr");
  out.articles = shown("article");
  out.pictures = shown(".picture svg");
  out.wide = document.documentElement.scrollWidth > innerWidth;
  out.background = colour(document.body, "backgroundColor");
  out.ink = colour(document.body, "color");
  out.cut = [...document.querySelectorAll("svg")].filter(visible).flatMap((svg) => {
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter((t) => {
      const own = t.getBoundingClientRect();
      return own.left < box.left - 1 || own.right > box.right + 1 || own.bottom > box.bottom + 2;
    }).map((t) => t.textContent);
  });
  const boxes = (s) => [...document.querySelectorAll(s)].filter(visible)
    .map((n) => n.getBoundingClientRect());
  const bars = boxes("#timeline g rect");
  out.underColumns = boxes("#timeline text.step").map((e) => (e.left + e.right) / 2)
    .every((at) => bars.some((r) => r.left <= at + 1 && at <= r.right + 1));
  const tops = (s) => boxes(s).map((r) => r.top);
  out.leads = Math.max(...tops("article:first-of-type"))
    < Math.min(...tops(".cards, .chart"), 1e9);
  out.sides = boxes(".picture svg").map((r) => Math.round(r.width));
  out.underlined = document.querySelectorAll("article pre u").length;
  out.stacked = [...document.querySelectorAll("table.stack thead")].every((t) => !visible(t));
  if (document.querySelector("button[data-verdict=NOT_CLARKE]")) {
    press("NOT_CLARKE");
    out.articlesWithoutWrong = shown("article");
    out.columnsWithoutWrong = document.querySelectorAll("#timeline g rect").length;
    press("NOT_CLARKE");
  }
  const search = document.getElementById("search");
  if (search) {
    search.value = "max_pool";
    search.dispatchEvent(new Event("input"));
    out.rowsFound = shown(".line");
    search.value = "";
    search.dispatchEvent(new Event("input"));
    out.rowsAgain = shown(".line");
  }
  const metric = document.getElementById("metric");
  if (metric) {
    const before = document.getElementById("kinks").innerHTML;
    metric.value = "share";
    metric.dispatchEvent(new Event("change"));
    out.metricChanged = before !== document.getElementById("kinks").innerHTML;
  }
  const pre = document.createElement("pre");
  pre.id = "probe";
  pre.textContent = JSON.stringify(out);
  document.body.append(pre);
});
</script>
"""


def look(page, tmp_path, *, width=1100, flags=()):
    """What the probe finds in the page, and what the browser logs."""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    if width < 500:  # narrower than any window of the browser: a frame in one
        frame = f'<iframe src="page.html" width="{width}" height="2000" style="border:0"></iframe>'
        told = (
            '<script>document.querySelector("iframe").onload = (e) => document.body.append('
            'e.target.contentDocument.getElementById("probe").cloneNode(true))</script>'
        )
        path = tmp_path / "frame.html"
        path.write_text(frame + told, encoding="utf-8")
        flags = ("--allow-file-access-from-files", *flags)
    run = subprocess.run(
        [
            BROWSER,
            *FLAGS,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},1200",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    console = [line for line in run.stderr.splitlines() if ":CONSOLE" in line]
    found = re.search(r'<pre id="probe">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found, run.stderr
    return json.loads(found[1]), console


@pytest.fixture
def page(tmp_path, handmade):
    handmade.make_run(tmp_path / "run", 300, wrong=(30, 31), undecided=range(100, 120))
    return run_page(read_run(tmp_path / "run"))


def test_the_page_draws_and_its_filters_work(page, tmp_path):
    found, console = look(page, tmp_path)
    assert console == []
    assert found["drawn"] == "yes"
    assert found["columns"] >= 240
    assert found["lines"] == 4
    assert (found["articles"], found["pictures"]) == (2, 1)
    assert found["sides"] == [240]
    assert found["underlined"] >= 2
    assert found["leads"]
    assert found["articlesWithoutWrong"] == 1
    assert found["columnsWithoutWrong"] < found["columns"]
    assert found["metricChanged"]
    assert found["underColumns"]
    assert found["cut"] == []
    assert not found["wide"]


DARK = ("--blink-settings=preferredColorScheme=0",)


@pytest.mark.parametrize("width", [400, 800, 1100])
def test_any_width_and_a_dark_screen(page, tmp_path, width):
    light, _ = look(page, tmp_path, width=width)
    dark, console = look(page, tmp_path, width=width, flags=DARK)
    assert console == []
    for found in (light, dark):
        assert found["drawn"] == "yes"
        assert found["cut"] == []
        assert not found["wide"]
    assert brightness(dark["ink"]) - brightness(dark["background"]) > 120
    assert brightness(light["background"]) - brightness(light["ink"]) > 120


def run_of(folder, layers, touched):
    """A run whose layers touch so many kinks, by step."""
    writer = RunWriter(folder, {"program": "train.py"})
    for n, counts in enumerate(touched, 1):
        kinks = tuple(
            KinkSummary("relu", layer, f"{layer}.py", 1, 100, count, count, "autograd took a side")
            for layer, count in zip(layers, counts, strict=True)
            if count
        )
        writer.write(StepRecord(n, Verdict.BOULIGAND, kinks=kinks, joint=Verdict.BOULIGAND))
    writer.finish({"ended": "finished", "seconds": 1.0})
    return run_page(read_run(folder))


def test_rare_kinks_are_points_and_every_level_has_a_tick(tmp_path):
    counts = [(5, 3) if n == 20 else (5, 0) if n % 2 else (50, 0) for n in range(40)]
    found, console = look(run_of(tmp_path / "run", ("often", "rare"), counts), tmp_path)
    assert console == []
    assert (found["lines"], found["dots"]) == (1, 1)
    assert set(found["levels"]) == {"50", "5", "3"}
    assert found["rows"] == 2
    assert found["columns"] == 0  # one verdict: no strip


def test_many_layers_are_rows_and_steady_ones_need_no_chart(tmp_path):
    names = [f"layer{i}" for i in range(12)]
    page = run_of(tmp_path / "many", names, [[n + i + 1 for i in range(12)] for n in range(9)])
    found, console = look(page, tmp_path)
    assert console == []
    assert found["lines"] == 0
    assert found["cells"] >= 12 * 9
    assert found["rowsFound"] == 0
    assert found["rowsAgain"] == 12
    steady, _ = look(run_of(tmp_path / "same", names, [[7] * 12] * 9), tmp_path)
    assert steady["cells"] == steady["lines"] == 0


def test_an_empty_run_and_a_comparison(tmp_path, handmade):
    handmade.make_run(tmp_path / "empty", 0)
    found, console = look(run_page(read_run(tmp_path / "empty")), tmp_path)
    assert console == []
    assert found["drawn"] == "yes"
    handmade.make_run(tmp_path / "a", 30)
    handmade.make_run(tmp_path / "b", 30, choice="piece 1", wrong=(3,))
    both = compare(read_run(tmp_path / "a"), read_run(tmp_path / "b"))
    for width in (400, 800):
        found, console = look(comparison_page(both), tmp_path, width=width)
        assert console == []
        assert found["rows"] >= 6
        assert found["stacked"]  # cards
        assert not found["wide"]
    found, _ = look(comparison_page(both), tmp_path, width=1100)
    assert not found["stacked"]


def test_the_log_is_watched(page, tmp_path):
    """An error in the page would be seen."""
    _, console = look(page.replace('"use strict";', '"use strict"; nothing();'), tmp_path)
    assert any("nothing is not defined" in line for line in console)


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
