"""The examples of the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Their examples start processes or read datasets, and their own tests run them.
ELSEWHERE = {"collectors.md", "scale_out.md", "trainers.md", "offline_to_online.md"}


def pages():
    return sorted(page.name for page in DOCS.glob("*.md") if BLOCK.search(page.read_text()))


@pytest.mark.parametrize("name", sorted(set(pages()) - ELSEWHERE))
def test_examples_of_a_page_run_one_after_the_other(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / name).read_text()
    namespace = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        # Empty lines in front, so that a traceback shows the line of the page.
        code = compile("\n" * line + block.group(1), str(DOCS / name), "exec")
        exec(code, namespace)


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"], ids=str)
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
