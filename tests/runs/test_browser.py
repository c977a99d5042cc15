"""The page in a real browser: it draws, its filters work, it fits, and nothing goes wrong."""

import os
import re
import shutil
import subprocess

import pytest

from clarke.report.runs import read_run
from clarke.report.runs.compare import compare, comparison_page
from clarke.report.runs.page import run_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
)
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
  out.cells = document.querySelectorAll("#heat rect").length;
  out.rows = shown("tbody tr");
  out.articles = shown("article");
  out.pictures = shown("svg.picture");
  out.wide = document.documentElement.scrollWidth > innerWidth;
  out.background = colour(document.body, "backgroundColor");
  out.ink = colour(document.body, "color");
  if (document.querySelector("button[data-verdict=NOT_CLARKE]")) {
    press("NOT_CLARKE");
    out.articlesWithoutWrong = shown("article");
    out.columnsWithoutWrong = document.querySelectorAll("#timeline g rect").length;
    press("NOT_CLARKE");
    const search = document.getElementById("search");
    search.value = "max_pool";
    search.dispatchEvent(new Event("input"));
    out.rowsFound = shown("tbody tr");
    search.value = "";
    search.dispatchEvent(new Event("input"));
    const metric = document.getElementById("metric");
    const before = document.getElementById("heat").innerHTML;
    metric.value = "share";
    metric.dispatchEvent(new Event("change"));
    out.metricChanged = before !== document.getElementById("heat").innerHTML;
    out.rowsAgain = shown("tbody tr");
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
    import json

    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
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
    assert found["cells"] > 400
    assert (found["articles"], found["pictures"]) == (2, 1)
    assert found["articlesWithoutWrong"] == 1
    assert found["columnsWithoutWrong"] < found["columns"]
    assert found["rowsFound"] == 1 < found["rows"] == found["rowsAgain"]
    assert found["metricChanged"]
    assert not found["wide"]


def test_a_narrow_dark_screen(page, tmp_path):
    light, _ = look(page, tmp_path)
    dark, console = look(
        page, tmp_path, width=500, flags=("--blink-settings=preferredColorScheme=0",)
    )
    assert console == []
    assert not dark["wide"]
    assert brightness(dark["ink"]) - brightness(dark["background"]) > 120
    assert brightness(light["background"]) - brightness(light["ink"]) > 120


def test_an_empty_run_and_a_comparison(tmp_path, handmade):
    handmade.make_run(tmp_path / "empty", 0)
    found, console = look(run_page(read_run(tmp_path / "empty")), tmp_path)
    assert console == []
    assert found["drawn"] == "yes"
    handmade.make_run(tmp_path / "a", 30)
    handmade.make_run(tmp_path / "b", 30, choice="piece 1", wrong=(3,))
    both = compare(read_run(tmp_path / "a"), read_run(tmp_path / "b"))
    found, console = look(comparison_page(both), tmp_path, width=500)
    assert console == []
    assert found["rows"] >= 6
    assert not found["wide"]


def test_the_log_is_watched(page, tmp_path):
    """An error in the page would be seen."""
    _, console = look(page.replace('"use strict";', '"use strict"; nothing();'), tmp_path)
    assert any("nothing is not defined" in line for line in console)


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
