"""What a run tells programs: JSON, SARIF, annotations, what is known, what is ignored."""

import json
import linecache
import re

import pytest

from clarke.report import KinkSummary
from clarke.report.runs import RunWriter, StepRecord, read_run
from clarke.report.runs.findings import ci_annotations, name_of, run_data, sarif
from clarke.verdict import Verdict

SCRIPT = """import torch

w = torch.zeros(2, requires_grad=True)
for step in range(2):
    loss = (torch.relu(w) - torch.relu(-w)).sum(){comment}
    loss.backward(){calling}
    w.grad = None
"""


@pytest.fixture
def ran(clarke_command, tmp_path):
    def run(*options, name="run", comment="", calling="", script=SCRIPT):
        linecache.clearcache()  # every script has the same name
        (tmp_path / "train.py").write_text(script.format(comment=comment, calling=calling))
        return clarke_command("run", "--out", name, "--seconds", "20", *options, "train.py")

    return run


pytestmark = pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")


def test_json_has_findings_with_places_reasons_and_cures(ran, tmp_path):
    done = ran("--json")
    assert done.status == 1
    found = json.loads(done.out.splitlines()[-1])
    (finding,) = found["findings"]
    assert finding["verdict"] == "NOT_CLARKE"
    assert finding["steps"] == [1, 2]
    assert finding["values"].startswith("returned 0, right 1 for entry [0]")
    assert "torch.maximum" in finding["cures"][0]
    assert finding["reason"].startswith("WRONG")
    assert [c["line"] for c in finding["culprits"]] == [5, 5]
    assert finding["culprits"][0]["source"].startswith("loss = (torch.relu(w)")
    assert finding["called"]["line"] == 6
    (place,) = found["places"]
    assert (place["operation"], place["line"], place["touched"]) == ("relu", 5, 8)
    assert found["finished"] is True
    assert json.loads(json.dumps(run_data(read_run(tmp_path / "run")))) == {
        k: v for k, v in found.items() if k != "folder"
    }


def test_sarif_names_rule_place_message_and_cure(ran, clarke_command, tmp_path):
    ran()
    log = json.loads(clarke_command("report", "run", "--sarif").out)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    (result,) = run["results"]
    assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert result["level"] == "error"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "train.py"
    assert place["region"] == {"startLine": 5}
    assert "Instead: torch.maximum" in result["message"]["text"]
    assert result["baselineState"] == "new"


def test_annotations_stand_at_the_line(ran, clarke_command):
    ran()
    (line,) = clarke_command("report", "run", "--annotations").out.splitlines()
    assert line.startswith("::error file=train.py,line=5,title=clarke%3A WRONG::WRONG in step 1")
    assert "returned 0, right 1" in line


def test_text_of_annotations_is_escaped(tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 5, wrong=(2,))
    run = read_run(tmp_path / "a")
    for line in ci_annotations(run).splitlines():
        assert re.match(r"::(error|warning) file=[^,:]+,line=\d+,title=[^,:]+::\S", line)


def test_what_is_known_does_not_count_when_lines_move(ran, clarke_command, tmp_path):
    done = ran("--baseline", "known.json")
    assert done.status == 0
    assert "1 written to" in done.err
    moved = "# a line more\n" + SCRIPT
    assert ran("--baseline", "known.json", name="b", script=moved).status == 0
    other = SCRIPT.replace("-w)).sum()", "-3 * w)).sum()")
    assert other != SCRIPT
    assert ran("--baseline", "known.json", name="c", script=other).status == 1
    assert clarke_command("report", "b", "--annotations", "--baseline", "known.json").out == ""
    assert clarke_command("report", "c", "--annotations", "--baseline", "known.json").out != ""
    log = json.loads(clarke_command("report", "b", "--sarif", "--baseline", "known.json").out)
    assert log["runs"][0]["results"][0]["baselineState"] == "unchanged"


def test_a_list_that_is_none_is_refused_before_the_script_runs(ran, tmp_path):
    (tmp_path / "known.json").write_text("[1]")
    done = ran("--baseline", "known.json")
    assert done.status == 2
    assert "is no list of known findings" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["comment", "calling"])
def test_a_line_with_a_reason_is_ignored(ran, clarke_command, tmp_path, where):
    done = ran(**{where: "  # clarke: ignore - known since 2.0"})
    assert done.status == 0
    assert "WrongGradientWarning" not in done.err
    told = " ".join(done.err.split())
    assert "does not count, as the code says: known since 2.0 (train.py:" in told
    assert "2 do not count: # clarke: ignore on 1 line." in told
    run = read_run(tmp_path / "run")
    assert run.steps[0].outcome is Verdict.NOT_CLARKE  # the verdict stays what it is
    assert ci_annotations(run) == ""
    (result,) = sarif(run)["runs"][0]["results"]
    assert result["suppressions"][0]["justification"].startswith("known since 2.0 (train")


@pytest.mark.filterwarnings("default::clarke.errors.AuditWarning")
def test_a_line_without_a_reason_is_not_ignored(ran, recwarn):
    assert ran(comment="  # clarke: ignore").status == 1
    said = [str(w.message) for w in recwarn if "gives no reason" in str(w.message)]
    assert len(said) == 1
    assert "train.py:5" in said[0]


def test_an_ignored_line_is_neither_raised_nor_repaired(ran, tmp_path):
    assert ran("--on-wrong", "raise", comment="  # clarke: ignore known").status == 0
    assert ran("--on-wrong", "repair", name="b", comment="  # clarke: ignore known").status == 0
    assert not read_run(tmp_path / "b").steps[0].repaired


def test_names_do_not_depend_on_numbers_of_lines(tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 5, wrong=(2,))
    run = read_run(tmp_path / "a")
    name = name_of(run, run.steps[1])
    assert name.startswith("NOT_CLARKE: relu at handmade.py")
    assert ":8" not in name


def test_an_unfinished_run_is_told_as_such_everywhere(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 5, finish=False)
    handmade.make_run(tmp_path / "b", 5)
    words = "Not finished: the run was ended from outside, or still goes on. Its last step was 5."
    assert json.loads(clarke_command("report", "a", "--json").out)["finished"] is False
    log = json.loads(clarke_command("report", "a", "--sarif").out)
    assert log["runs"][0]["invocations"] == [{"executionSuccessful": False}]
    assert words in clarke_command("report", "a", "--annotations").out
    for said in (("report", "a", "--text"), ("report", "b", "a", "--text")):
        assert words in " ".join(clarke_command(*said).out.split())
    for pair, name in ((("a",), "report.html"), (("a", "b"), "comparison.html")):
        clarke_command("report", *pair)
        assert words in (tmp_path / "a" / name).read_text("utf-8")


def test_two_runs_with_nothing_in_common_say_so(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 5)
    make_other(tmp_path / "b")
    said = " ".join(clarke_command("report", "a", "b", "--text").out.split())
    assert "The two runs have nothing in common" in said
    clarke_command("report", "a", "b")
    page = (tmp_path / "a" / "comparison.html").read_text("utf-8")
    assert "Touched in a only" in page
    assert "Touched in b only" in page


def make_other(folder):
    writer = RunWriter(folder, {"program": "other.py", "torch": "2.13.0"})
    kink = KinkSummary("abs", "", "other.py", 3, 10, 1, 1, "autograd took the mean of both sides")
    writer.write(StepRecord(1, Verdict.CLARKE, kinks=(kink,), joint=Verdict.CLARKE))
    writer.finish({"ended": "finished", "seconds": 1.0})


def test_forms_exclude_each_other(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 3)
    done = clarke_command("report", "a", "--json", "--sarif")
    assert done.status == 2
    assert "--json and --sarif exclude each other" in done.err
    assert clarke_command("report", "a", "a", "--annotations").status == 2
