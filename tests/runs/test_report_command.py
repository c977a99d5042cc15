"""`clarke report`: pages, text and JSON of one run and of two."""

import json

from clarke.report.runs import read_run


def test_one_run(clarke_command, tmp_path, handmade):
    made = handmade.make_run(tmp_path / "a", 30, wrong=(3,))
    done = clarke_command("report", "a")
    assert done.out == "a/report.html\n"
    assert "1 of 30 gradients: WRONG" in (tmp_path / "a" / "report.html").read_text("utf-8")
    done = clarke_command("report", "a", "--out", "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    found = json.loads(clarke_command("report", "a", "--json").out)
    assert found["verdicts"]["NOT_CLARKE"] == 1
    assert found["touched"] == sum(s.touched for s in made)
    assert found["finished"] is True


def test_text_fits_80_columns(clarke_command, tmp_path, handmade, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    handmade.make_run(tmp_path / "a", 30, wrong=(3,), undecided=(5, 6))
    done = clarke_command("report", "a", "--text")
    assert "30 backward calls, 30 looked at" in done.out
    assert "unknown operation" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert "\x1b" not in done.out


def test_two_runs(clarke_command, tmp_path, handmade, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    handmade.make_run(tmp_path / "a", 30, settings={"torch": "2.13.0"})
    handmade.make_run(tmp_path / "b", 30, choice="piece 1", settings={"torch": "2.14.0"})
    assert clarke_command("report", "a", "b").out == "a/comparison.html\n"
    done = clarke_command("report", "a", "b", "--text")
    assert "At 4 places autograd chose differently. Both choices are valid" in done.out
    found = json.loads(clarke_command("report", "a", "b", "--json").out)
    assert found["settings"]["torch"] == ["2.13.0", "2.14.0"]
    assert len(found["changed"]) == 4
    assert found["verdicts"] == []


def test_a_killed_run_is_shown(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 30, finish=False)
    path = tmp_path / "a" / "steps.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert clarke_command("report", "a").status == 0
    page = (tmp_path / "a" / "report.html").read_text("utf-8")
    assert "Not finished: the run was ended from outside" in page
    assert len(read_run(tmp_path / "a").steps) == 29


def test_no_run_there_is_bad_usage(clarke_command):
    done = clarke_command("report", "nowhere")
    assert done.status == 2
    assert "holds no run" in done.err


def test_a_record_that_cannot_be_read_says_so(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 3)
    (tmp_path / "a" / "steps.jsonl").write_text("[1,2]\nnothing\n")
    assert "2 lines of the record cannot be read" in clarke_command("report", "a", "--text").out


def test_what_cannot_be_written_is_bad_usage(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 3)
    done = clarke_command("report", "a", "--out", "no/such/folder/x.html")
    assert done.status == 2
    assert "cannot be written" in done.err
    assert "--out" in done.err


def test_two_forms_at_once_are_bad_usage(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 3)
    done = clarke_command("report", "a", "--text", "--json")
    assert done.status == 2
    assert "exclude each other" in done.err


def test_a_folder_is_no_page(clarke_command, tmp_path, handmade):
    handmade.make_run(tmp_path / "a", 3)
    done = clarke_command("report", "a", "--out", tmp_path)
    assert done.status == 2
    assert "cannot be written" in done.err
