"""The article on the experiments: what it quotes is what was measured, and nothing of it is typed."""

from __future__ import annotations

import json
import re

import pytest

from experiments import article, cli

PAGE = article.PAGE.read_text(encoding="utf-8")
KEPT = json.loads((article.GENERATED / "article.json").read_text(encoding="utf-8"))


# --- the page, and what is committed beside it -----------------------------------------------------------------------


def test_everything_quoted_is_there():
    assert len(article.QUOTE.findall(PAGE)) > 30
    assert set(article.QUOTE.findall(PAGE)) <= set(KEPT["quotes"])
    included = set(article.INCLUDED.findall(PAGE))
    assert included == {path.stem for path in article.GENERATED.glob("*.html")}
    assert PAGE.count("{{") == len(article.QUOTE.findall(PAGE))
    assert PAGE.count(":file:") == len(article.INCLUDED.findall(PAGE))


def test_no_measured_number_is_typed():
    """Decimals, percentages and powers of ten come from results only; formulas have none."""
    prose = article.QUOTE.sub("", PAGE)
    assert re.findall(r"\d\.\d|\d ?%|10⁻|×10|\d per cent", prose) == []


def test_quotes_are_the_measured_numbers_of_the_claims():
    """The numbers in the text and those in the tables of claims are of one run."""
    tables = {path.stem.removesuffix("-claims"): path for path in article.GENERATED.glob("*-claims.html")}
    quoted = {quote.rstrip("%") for quote in article.QUOTE.findall(PAGE)}
    for quote in (each for each in quoted if not re.search("^run/|highlight-", each)):
        experiment, _ = quote.split("/")
        assert f"<td>{KEPT['quotes'][quote]} " in tables[experiment].read_text(encoding="utf-8"), quote


def test_drawings_have_ids_of_their_own():
    included = [article.GENERATED / f"{name}.html" for name in article.INCLUDED.findall(PAGE)]
    text = "".join(path.read_text(encoding="utf-8") for path in included)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 100
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= set(ids)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


# --- the generator ---------------------------------------------------------------------------------------------------


def results(folder, *, measured=0.25, holds=True, **environment):
    """Write the results of a run with one experiment, of one claim below 1, one control above 0.1, and one figure."""
    claims = [
        {"id": "small", "statement": "It is <small>.", "measured": measured, "comparison": "<", "threshold": 1},
        {"id": "large", "statement": "That is large.", "measured": measured, "comparison": ">", "threshold": 0.1},
    ]
    claims = [{**claim, "detail": "", "control": claim["id"] == "large", "holds": holds} for claim in claims]
    panel = {"file": "figures/one.svg", "alt": "A <line>."}
    figure = {"name": "line", "title": "A line", "caption": "From a & b.", "width": 300, "panels": [panel]}
    table = {"title": "All of it", "caption": "In rows.", "columns": ["a", "b"], "rows": [["<1>", "2"]]}
    entry = {"name": "toy", "claims": claims, "figures": [figure], "tables": [table], "emblem": panel}
    entry["highlights"] = [["7", "things"]]
    described = {"seed": 0, "quick": False, "x64": False, "device": "cpu: cpu", "cores": 2, "python": "3.11"}
    described |= {"versions": {"jaxconv": "0", "jax": "1"}, "source": "abc", "started": "now"} | environment
    (folder / "figures").mkdir(parents=True)
    drawing = '<svg><g id="a"/><use href="#a"/><g style="fill: url(#a)"/></svg>'
    (folder / "figures" / "one.svg").write_text(drawing, encoding="utf-8")
    run = {"environment": described, "holds": holds, "experiments": [entry]}
    (folder / "results.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


@pytest.fixture
def page(tmp_path):
    quotes, names = "{{ toy/small }} {{ toy/large% }} {{ run/seeds }}", ("toy-line", "toy-claims", "toy-all-of-it")
    text = "\n".join([quotes, *(f":file: _generated/{name}.html" for name in names)])
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_least_favourable_run_is_quoted(tmp_path, page):
    folders = [results(tmp_path / f"run-{m}", measured=m, seed=s) for s, m in enumerate((0.25, 0.5, 0.125))]
    out = tmp_path / "out"
    files = article.write(folders, page, out)
    assert sorted(path.name for path in files) == [
        *("article.json", "toy-all-of-it.html", "toy-claims.html", "toy-line.html")
    ]
    kept = json.loads((out / "article.json").read_text(encoding="utf-8"))
    quotes = kept["quotes"]
    assert (quotes["toy/small"], quotes["toy/large"], quotes["toy/large%"]) == ("0.500", "0.125", "12.5%")
    assert (quotes["run/seeds"], quotes["run/which"]) == ("seeds 0, 1 and 2", "three full runs")
    assert (quotes["run/claims"], quotes["run/controls"], quotes["run/experiments"]) == ("2", "1", "one")
    assert quotes["run/device"] == "2 CPU cores"
    assert quotes["toy/highlight-1"] == "7"
    assert [run["seed"] for run in kept["runs"]] == [0, 1, 2]
    claims = (out / "toy-claims.html").read_text(encoding="utf-8")
    assert "It is &lt;small&gt;.</td><td>0.500 &lt; 1</td>" in claims
    assert "<b>Control.</b> That is large.</td><td>0.125 &gt; 0.1</td>" in claims
    table = (out / "toy-all-of-it.html").read_text(encoding="utf-8")
    assert "<th>a</th><th>b</th>" in table
    assert "<tr><td>&lt;1&gt;</td><td>2</td></tr>" in table
    figure = (out / "toy-line.html").read_text(encoding="utf-8")
    assert '<svg role="img" aria-label="A &lt;line&gt;."><g id="toy-line-0-a"/>' in figure
    assert '<use href="#toy-line-0-a"/><g style="fill: url(#toy-line-0-a)"/>' in figure
    assert "<b>A line.</b> From a &amp; b." in figure


@pytest.mark.parametrize(
    ("measured", "comparison", "text"),
    [(0.9939, ">", "99.3%"), (0.9939, "<", "99.4%"), (0.07, "<", "7.0%"), (0.29, ">=", "29.0%"), (1.0, ">", "100.0%")],
)
def test_percentages_do_not_flatter(measured, comparison, text):
    assert article._percentage({"measured": measured, "comparison": comparison}) == text


def test_what_is_no_longer_included_goes(tmp_path, page):
    out = tmp_path / "out"
    out.mkdir()
    (out / "toy-old.html").write_text("old")
    article.write([results(tmp_path / "run")], page, out)
    assert not (out / "toy-old.html").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quick": True}, "holds a quick run"),
        ({"holds": False}, "claims fail: toy/small, toy/large"),
        ({"source": "other"}, "has other source code than the first run: other, not abc"),
    ],
)
def test_runs_that_may_not_be_quoted(tmp_path, page, changes, message):
    folders = [results(tmp_path / "first"), results(tmp_path / "second", **changes)]
    with pytest.raises(article.ArticleError, match=message):
        article.write(folders, page, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_results_lack(tmp_path, page):
    page.write_text("{{ toy/tiny }} {{ toy/small }}\n:file: _generated/toy-curve.html", encoding="utf-8")
    with pytest.raises(article.ArticleError, match=r"quotes what .*run does not contain: toy-curve, toy/tiny"):
        article.write([results(tmp_path / "run")], page, tmp_path / "out")


def test_command_line_says_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["article", str(tmp_path)])
    assert stop.value.code == 2
    assert f"there is no {tmp_path / 'results.json'}" in capsys.readouterr().err
