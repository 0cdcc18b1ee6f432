"""The examples in README.md and docs/ print what they claim to print."""

import doctest
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if ">>>" in page.read_text()]


@pytest.mark.x32
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path) -> None:
    # Blank lines in place of the fences: doctest would take a closing fence for expected output, and counts lines.
    text = re.sub(r"^ *```.*$", "", page.read_text(), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, page.name, str(page), 0)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    result = runner.run(examples, out=report.write)
    assert result.attempted > 0
    assert result.failed == 0, report.getvalue()
