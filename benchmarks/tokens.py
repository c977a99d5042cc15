"""How large the program is: tokens by layer, without comments and docstrings; see `make tokens`.

`python benchmarks/tokens.py` counts the files as they are, beside what they were at a commit
(`--since`, by default the last release; without one, the first of all). `--history N` adds a line
for each of N commits of the branch, in even steps back to the first.
"""

from __future__ import annotations

import argparse
import ast
import io
import shutil
import subprocess
import sys
import tarfile
import tokenize
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = "src/clarke"
_SILENT = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    | {tokenize.ENCODING, tokenize.ENDMARKER}
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(tree: ast.Module) -> set[tuple[int, int]]:
    """Where docstrings begin: line and column."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found.add((first.lineno, first.col_offset))
    return found


def count(source: str) -> int:
    """Tokens of a file that a reader has to understand."""
    skipped = docstrings(ast.parse(source))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(t.type not in _SILENT and t.start not in skipped for t in tokens)


def by_layer(sources: dict[str, str]) -> Counter[str]:
    """Tokens of each layer: a file or a folder directly below the package."""
    found: Counter[str] = Counter()
    for path, source in sources.items():
        first, _, below = path.removeprefix(f"{_PACKAGE}/").partition("/")
        found[f"{first}/" if below else first] += count(source)
    return found


def as_they_are() -> dict[str, str]:
    """The files of the working tree."""
    paths = (_ROOT / _PACKAGE).rglob("*.py")
    return {p.relative_to(_ROOT).as_posix(): p.read_text("utf-8") for p in sorted(paths)}


def at(commit: str) -> dict[str, str]:
    """The files at a commit."""
    packed = io.BytesIO(_git("archive", commit, _PACKAGE))
    with tarfile.open(fileobj=packed) as files:
        members = [m for m in files.getmembers() if m.name.endswith(".py")]
        found = {m.name: files.extractfile(m) for m in members}
        return {name: file.read().decode() for name, file in found.items() if file is not None}


def _git(*arguments: str) -> bytes:
    command = [shutil.which("git") or "git", *arguments]
    return subprocess.run(command, cwd=_ROOT, check=True, capture_output=True).stdout


def _lines(*arguments: str) -> list[str]:
    return _git(*arguments).decode().split("\n")[:-1]


def _last_release() -> str:
    """The newest tag, or the first commit."""
    tags = _lines("tag", "--merged", "HEAD", "--sort=-creatordate")
    return tags[0] if tags else _lines("rev-list", "--max-parents=0", "HEAD")[-1]


def show(now: Counter[str], before: Counter[str], since: str) -> str:
    """The table."""
    now, before = Counter(now), Counter(before)
    now["all"], before["all"] = sum(now.values()), sum(before.values())
    layers = sorted({*now, *before}, key=lambda name: (name == "all", -now[name], name))
    rows = (f"{n:22s} {now[n]:8d}   {now[n] - before[n]:+d}" for n in layers)
    return "\n".join([f"{'layer':22s} {'tokens':>8s}   since {since[:9]}", *rows])


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--since", help="the commit beside which it is put")
    parser.add_argument("--history", type=int, default=0, metavar="N", help="lines back in time")
    given = parser.parse_args()
    now = by_layer(as_they_are())
    try:
        since = given.since or _last_release()
        print(show(now, by_layer(at(since)), since))
        commits = _lines("rev-list", "--first-parent", "HEAD")
    except (OSError, subprocess.CalledProcessError) as error:
        # A copy without its history, or with the last commits alone.
        print(show(now, now, "nothing"))
        print(f"No earlier commit can be read ({error}).", file=sys.stderr)
        return
    step = max(1, len(commits) // max(given.history, 1))
    for commit in commits[::step][: given.history]:
        total = sum(by_layer(at(commit)).values())
        print(_lines("log", "-1", "--format=%cs %h", commit)[0], f"{total:8d} tokens")


if __name__ == "__main__":
    main()
