"""The site: every page and every public name is in it; it builds, strict about links."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clarke
import clarke.testing

ROOT = Path(__file__).resolve().parents[1]
API = (ROOT / "docs" / "api" / "index.md").read_text("utf-8")
SITE = (ROOT / "mkdocs.yml").read_text("utf-8")


def test_every_public_name_has_an_entry():
    shown = re.findall(r"^::: clarke\.(?:\w+\.)?(\w+)$", API, re.MULTILINE)
    tests = {*clarke.testing.__all__}
    assert sorted(set(shown) - tests) == sorted(clarke.__all__)


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", SITE, re.MULTILINE))
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert listed == pages


def test_public_docstrings_teach_alone():
    for name in clarke.__all__:
        text = getattr(clarke, name).__doc__
        assert text, name
        assert text.strip()[0].isupper(), name


def test_every_picture_is_shown():
    shown = "".join(p.read_text("utf-8") for p in (ROOT / "docs").rglob("*.md"))
    names = {p.name for p in (ROOT / "docs" / "images").iterdir()}
    assert {n for n in names if n not in shown} == set()


def test_the_site_builds(tmp_path):
    own = ROOT / ".venv-docs" / "bin" / "mkdocs"
    found = (
        str(own) if own.exists() else shutil.which("mkdocs", path=str(Path(sys.executable).parent))
    )
    if found is None:
        pytest.skip("no mkdocs is installed: make docs")
    done = subprocess.run(
        [found, "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "clarke.check" in (tmp_path / "site" / "api" / "index.html").read_text("utf-8")
    assert (tmp_path / "site" / "search" / "search_index.json").exists()
