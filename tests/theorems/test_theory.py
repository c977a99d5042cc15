"""The code of docs/theory.md runs, and its assertions hold."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "theory.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_page_holds():
    text = PAGE.read_text("utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= 10
    names: dict[str, object] = {"__name__": "theory"}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        code = "\n" * line + block.group(1)
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - our own page


def test_every_result_has_example_counterexample_and_check():
    text = PAGE.read_text("utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[2:]
    proved = [s for s in sections if "∎" in s]
    assert len(proved) >= 6
    for section in proved:
        title = section.splitlines()[0]
        assert re.search(r"\*Example", section), title
        assert re.search(r"\*Counterexample", section), title
        assert "```python" in section or "one by one" in title, title
