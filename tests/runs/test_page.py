"""The page says what the run's folder says, needs nothing else, and cannot be broken by names."""

import html.parser
import json
import re

import pytest

from clarke.report.runs import CulpritRecord, Picture, RunWriter, StepRecord, read_run
from clarke.report.runs.compare import compare, comparison_page
from clarke.report.runs.digest import BINS, digest, noted, places
from clarke.report.runs.drawing import drawing, hull, nearest
from clarke.report.runs.page import headline, run_page
from clarke.report.runs.words import label, meaning
from clarke.verdict import Verdict


class _Tags(html.parser.HTMLParser):
    VOID = frozenset({"meta", "input", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.sources, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def parse(page):
    tags = _Tags()
    tags.feed(page)
    assert tags.wrong == []
    assert tags.open == []
    return tags


def embedded(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture
def run(tmp_path, handmade):
    handmade.make_run(tmp_path / "run", 600, wrong=(30, 31), undecided=range(100, 140), skipped=1)
    return read_run(tmp_path / "run")


def test_the_page_is_well_formed_and_needs_no_network(run):
    page = run_page(run)
    tags = parse(page)
    assert tags.sources == []
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not fetched
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_numbers_on_the_page_are_those_of_the_run(run):
    data = embedded(run_page(run))
    assert len(data["starts"]) == BINS
    sums = {v["key"]: sum(v["counts"]) for v in data["verdicts"]}
    assert sums == {v.name: n for v, n in run.counts().items()}
    assert sum(sum(layer["touched"]) for layer in data["layers"]) == sum(
        s.touched for s in run.steps
    )
    assert sum(sum(layer["relevant"]) for layer in data["layers"]) == sum(
        s.relevant for s in run.steps
    )
    assert data["starts"] == sorted(data["starts"])
    assert data["starts"][0] == 1
    words = " ".join(parse(run_page(run)).words)
    assert "2 of 600 gradients: WRONG" in words
    assert f"{sum(s.touched for s in run.steps):,}" in words
    assert "the same in 39 more steps" in words


@pytest.mark.parametrize("count", [0, 1, 2, BINS, BINS + 1])
def test_runs_of_any_length(tmp_path, handmade, count):
    handmade.make_run(tmp_path, count)
    run = read_run(tmp_path)
    data = embedded(run_page(run))
    assert len(data["starts"]) == min(count, BINS)
    assert sum(sum(v["counts"]) for v in data["verdicts"]) == count
    parse(run_page(run))


def test_names_cannot_break_the_page(tmp_path):
    evil = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    writer = RunWriter(tmp_path / "run", {"program": evil, "arguments": [evil], "note": evil})
    culprit = CulpritRecord(evil, evil, evil, 1, evil)
    from clarke.report import KinkSummary

    kink = KinkSummary(evil, evil, evil, 1, 10, 5, 2, evil)
    writer.write(StepRecord(1, Verdict.UNDECIDED, evil, evil, (kink,), (culprit,), file=evil))
    page = run_page(read_run(tmp_path / "run"))
    tags = parse(page)
    assert tags.sources == []
    assert page.count("<script") == 2
    assert "<img" not in page


def test_the_answer_names_the_worst_verdict(tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 9)
    worst, answer, _ = headline(read_run(tmp_path / "a"))
    assert worst.correct
    assert answer == "Every gradient was correct."
    handmade.make_run(tmp_path / "b", 9, skipped=3)
    assert headline(read_run(tmp_path / "b"))[1] == "Each of the 3 gradients looked at was correct."
    handmade.make_run(tmp_path / "c", 9, undecided=(2,), wrong=(3,))
    assert headline(read_run(tmp_path / "c"))[0] is Verdict.NOT_CLARKE
    handmade.make_run(tmp_path / "d", 0)
    assert headline(read_run(tmp_path / "d"))[0] is None


def test_places_that_a_wrong_verdict_names_come_first(run):
    found = places(run)
    assert [p.worst for p in found[:3]] == [
        Verdict.NOT_CLARKE,
        Verdict.NOT_CLARKE,
        Verdict.UNDECIDED,
    ]
    assert sum(p.touched for p in found) == sum(s.touched for s in run.steps)
    assert any(p.source for p in found)  # read when the run was written


def test_alike_steps_are_put_together(run):
    groups = noted(run)
    assert [len(g.numbers) for g in groups] == [2, 40]
    assert groups[0].first.number == 30


def test_steps_whose_reasons_differ_in_numbers_are_alike(tmp_path):
    writer = RunWriter(tmp_path, {})
    for n in range(1, 9):
        why = f"Time ran out (1 s) while finding kinks: operation {n} of 90."
        writer.write(StepRecord(n, Verdict.UNDECIDED, why, joint=Verdict.UNDECIDED))
    (group,) = noted(read_run(tmp_path))
    assert group.numbers == tuple(range(1, 9))


def test_every_verdict_is_explained():
    for verdict in (*Verdict, None):
        assert label(verdict)
        assert meaning(verdict).endswith(".")
    assert len({label(v) for v in (*Verdict, None)}) == len(Verdict) + 1


def test_layers_keep_the_order_of_evaluation(run, handmade):
    assert [layer["name"] for layer in digest(run)["layers"]] == list(handmade.LAYERS)


# --- pictures -------------------------------------------------------------------------------------


def test_hull_of_points_in_the_plane():
    import numpy as np

    points = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1], [1, 0], [2, 1]], dtype=float)
    assert hull(points).tolist() == [[0, 0], [2, 0], [2, 2], [0, 2]]
    assert hull(points[:1]).tolist() == [[0, 0]]
    line = hull(np.array([[0.0, 0], [1, 1], [2, 2]]))
    assert sorted(line.tolist()) == [[0, 0], [2, 2]]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_gradient_outside_is_drawn_outside(size):
    corners = [tuple(float(i == j) for i in range(size)) for j in range(size)]
    picture = drawing(Picture((3.0,) * size, tuple(corners), corners[0]))
    cross = re.search(r'class="ad" d="M([\d.]+),([\d.]+)', picture)
    polygon = re.search(r'class="set" points="([^"]*)"', picture)[1]
    ys = [float(p.split(",")[1]) for p in polygon.split()]
    xs = [float(p.split(",")[0]) for p in polygon.split()]
    x, y = float(cross[1]) + 6, float(cross[2]) + 6
    assert x > max(xs) or y < min(ys)
    assert picture.count('class="vertex"') == len(corners)


def test_nearest_point_of_a_hull():
    import numpy as np

    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=float)
    assert np.allclose(nearest(square, np.array([0.5, 0.25, 2.0])), [0.5, 0.25, 0], atol=1e-6)
    assert np.allclose(nearest(square, np.array([3.0, 3.0, 1.0])), [1, 1, 0], atol=1e-6)
    assert np.allclose(nearest(square[:1], np.array([3.0, 3.0, 1.0])), [0, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    "picture",
    [
        Picture((1.0,) * 4, ((0.0,) * 4,)),
        Picture((float("nan"),), ((0.0,),)),
        Picture((1.0,), ()),
        Picture((1.0, 2.0), ((0.0,),)),
    ],
)
def test_what_cannot_be_drawn_is_not(picture):
    assert drawing(picture) == ""


# --- two runs -------------------------------------------------------------------------------------


def test_changed_conventions_are_found(tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 20, choice="piece 1", settings={"torch": "2.13.0"})
    handmade.make_run(tmp_path / "b", 20, choice="piece 0", settings={"torch": "2.14.0"})
    found = compare(read_run(tmp_path / "a"), read_run(tmp_path / "b"))
    assert len(found.changed) == 4
    assert found.settings == {"torch": ("2.13.0", "2.14.0")}
    assert found.verdicts == ()
    assert "Both choices are valid" in found.answer
    words = " ".join(parse(comparison_page(found)).words)
    assert "changed" in words
    assert "2.14.0" in words


def test_a_change_that_makes_gradients_wrong_is_no_valid_one(tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 20, choice="piece 1")
    handmade.make_run(tmp_path / "b", 20, choice="piece 0", wrong=(4, 5, 9))
    found = compare(read_run(tmp_path / "a"), read_run(tmp_path / "b"))
    assert "valid" not in found.answer
    assert "Only the first run is free" in found.answer
    assert [a.number for a, _ in found.verdicts] == [4, 5, 9]
    assert "steps 4 to 5" in comparison_page(found)


def test_other_data_at_the_same_place_is_no_changed_convention(tmp_path):
    from clarke.report import KinkSummary

    for name, touched, choice in (("a", 3, "piece 0"), ("b", 4, "piece 0, 2")):
        kink = KinkSummary("clamp", "", "f.py", 1, 10, touched, touched, choice)
        RunWriter(tmp_path / name, {}).write(StepRecord(1, Verdict.SMOOTH, "", kinks=(kink,)))
    found = compare(read_run(tmp_path / "a"), read_run(tmp_path / "b"))
    assert found.changed == ()


def test_a_run_compared_with_itself_differs_in_nothing(run):
    found = compare(run, run)
    assert found.changed == ()
    assert found.verdicts == ()
    assert found.settings == {}
    assert "No verdict changed" in found.answer
