"""The examples in README.md and docs/ print what they claim to print."""

import doctest
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if ">>>" in page.read_text()]


def plain(block: re.Match[str]) -> str:
    """Return a fenced block with what doctest wants: no fences, and a marker for each blank line that was printed."""
    return "\n" + re.sub(r"^$(?!\n>>>|\n?\Z)", "<BLANKLINE>", block[1], flags=re.MULTILINE) + "\n"


@pytest.mark.x32
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path) -> None:
    text = re.sub(r"^```python\n(.*?)^```$", plain, page.read_text(), flags=re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, page.name, str(page), 0)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(examples, out=report.write)
    assert result.attempted > 0
    assert result.failed == 0, report.getvalue()
