"""Sets the results as one HTML page that needs nothing beside itself: style, drawings and numbers are all inside."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from experiments.figures import scientific
from experiments.questions import QUESTIONS, Question, rank

STYLE = Path(__file__).with_name("report.css")
TITLE = "Does flipping the kernel matter?"
LEAD = (
    "Convolution reverses its kernel before sliding it over the image; correlation slides it as it is. "
    "Mathematics needs the first, deep-learning libraries compute the second. "
    "Here kernels and networks learn from real images under both."
)
SIGNS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "="}


def inequality(claim: dict[str, Any]) -> str:
    """Write what was measured and what was required: '8.3×10⁻⁷ < 0.001'; a claim that fails is marked as such."""
    sign = SIGNS[claim["comparison"]]
    text = f"{scientific(claim['measured'])} {sign} {_threshold(claim['threshold'])}"
    return text if claim["holds"] else f"not {text}"


def _threshold(value: float) -> str:
    """Write a number that was chosen, without the digits that a measured one has."""
    text = scientific(value)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def page(results: dict[str, Any], out: Path) -> str:
    """Return the page; the drawings are read from `out`."""
    entries = sorted(results["experiments"], key=lambda entry: rank(entry["name"]))
    contents = [(entry["name"], entry["name"].capitalize()) for entry in entries]
    links = "".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in [*contents, ("run", "This run")])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{TITLE}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>{TITLE}</h1>
<p class="lead">{LEAD}</p>
{_verdict(results)}
{_spine(entries)}
<nav>{links}</nav>
</header>
<main>
{"".join(_experiment(entry, out) for entry in entries)}
{_environment(results)}
</main>
</body>
</html>"""


def _verdict(results: dict[str, Any]) -> str:
    claims = [claim for entry in results["experiments"] for claim in entry["claims"]]
    holding = sum(claim["holds"] for claim in claims)
    controls = sum(claim["control"] for claim in claims)
    if stopped := results["stopped"]:
        return (
            f'<p class="verdict bad"><b>Stopped</b> {escape(stopped["experiment"])}: {escape(stopped["message"])}</p>'
        )
    missing = [name for name in results["planned"] if name not in {entry["name"] for entry in results["experiments"]}]
    if missing:
        return f'<p class="verdict bad"><b>Unfinished</b> not yet run: {escape(", ".join(missing))}</p>'
    if holding < len(claims):
        failing = ", ".join(claim["id"] for claim in claims if not claim["holds"])
        return (
            f'<p class="verdict bad"><b>{len(claims) - holding} of {len(claims)} claims fail</b> {escape(failing)}</p>'
        )
    quick = " A quick run: fewer cases than the full one." if results["environment"]["quick"] else ""
    return (
        f'<p class="verdict good"><b>All {len(claims)} claims hold</b>, '
        f"{controls} of them controls that could have exposed the others.{quick}</p>"
    )


def _spine(entries: list[dict[str, Any]]) -> str:
    """Return what textbooks say, and what this run says of it, in one list."""
    rows = "".join(_question(number, question, entries) for number, question in enumerate(QUESTIONS, 1))
    return f"""<section class="spine">
<h2>What textbooks say, and what was measured</h2>
<ol>{rows}</ol>
</section>
"""


def _question(number: int, question: Question, entries: list[dict[str, Any]]) -> str:
    claims = [(entry["name"], claim) for entry in entries for claim in entry["claims"] if claim["question"] == number]
    failing = [claim["id"] for _, claim in claims if not claim["holds"]]
    names = dict.fromkeys(name for name, _ in claims)
    links = ", ".join(f'<a href="#{name}">{escape(name)}</a>' for name in names)
    mark, verdict, answer, evidence = "good", question.verdict, question.answer, f"✓ {_count(claims, 'hold')}: {links}"
    if not claims:
        mark, verdict, answer, evidence = "none", "", "", "not asked in this run"
    elif failing:
        mark, verdict, answer = "bad", "Not answered:", f"{', '.join(failing)} failed."
        evidence = f"✗ {len(failing)} of {_count(claims, 'fail', len(failing))}: {links}"
    answer = f'<p class="answer"><b>{escape(verdict)}</b> {escape(answer)}</p>' if answer else ""
    return f"""<li id="question-{number}" class="{mark}"><p class="sentence">{escape(question.sentence)}</p>
{answer}<p class="evidence">{evidence}</p></li>
"""


def _count(claims: list[Any], verb: str, subjects: int | None = None) -> str:
    """Write '1 claim holds', '3 claims hold', or after 'n of' with as many subjects '3 claims fail'."""
    plural = len(claims) if subjects is None else subjects
    return f"{len(claims)} claim{'' if len(claims) == 1 else 's'} {verb}{'s' if plural == 1 else ''}"


def _highlights(entry: dict[str, Any], out: Path) -> str:
    numbers = "".join(
        f"<div><dt>{escape(text)}</dt><dd>{escape(value)}</dd></div>" for value, text in entry["highlights"]
    )
    emblem = f'<div class="emblem">{_drawing(entry["emblem"], out, "summary")}</div>' if entry["emblem"] else ""
    return f'<div class="card">{emblem}<dl>{numbers}</dl></div>' if numbers or emblem else ""


def _answer(entry: dict[str, Any]) -> str:
    failing = [claim["id"] for claim in entry["claims"] if not claim["holds"]]
    return f"Not answered, for these claims fail: {', '.join(failing)}." if failing else entry["answer"]


def _experiment(entry: dict[str, Any], out: Path) -> str:
    asked = sorted({claim["question"] or 0 for claim in entry["claims"]})
    claims = "".join(_claims(number, entry["claims"]) for number in asked)
    figures = "".join(_figure(figure, out) for figure in entry["figures"])
    tables = "".join(_table(table) for table in entry["tables"])
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in entry["method"].split("\n\n"))
    return f"""<section id="{entry["name"]}" class="experiment">
<p class="kicker">{escape(entry["name"])} · {entry["seconds"]:.0f} s</p>
<h2>{escape(entry["question"])}</h2>
<p class="answer">{escape(_answer(entry))}</p>
{_highlights(entry, out)}
<details open class="prose"><summary>How it is measured</summary>{paragraphs}</details>
{claims}{figures}{tables}</section>
"""


def _claims(number: int, claims: list[dict[str, Any]]) -> str:
    """Return the claims that speak of one question, under its sentence."""
    items = "".join(_claim(claim) for claim in claims if (claim["question"] or 0) == number)
    sentence = ""
    if number:
        sentence = f' on <a href="#question-{number}">{number}</a>: “{escape(QUESTIONS[number - 1].sentence)}”'
    return f"""<h3>Claims{sentence}</h3>
<ul class="claims">{items}</ul>
"""


def _claim(claim: dict[str, Any]) -> str:
    verdict, word = ("good", "holds") if claim["holds"] else ("bad", "fails")
    control = '<span class="tag">control</span> ' if claim["control"] else ""
    detail = f'<span class="detail">{escape(claim["detail"])}</span>' if claim["detail"] else ""
    return f"""<li><span class="mark {verdict}">{word}</span>
<div><span>{control}{escape(claim["statement"])}</span>{detail}</div>
<span class="measured">{escape(inequality(claim))}</span></li>
"""


def _figure(figure: dict[str, Any], out: Path) -> str:
    panels = "".join(f"<div>{_drawing(panel, out)}</div>" for panel in figure["panels"])
    return f"""<figure>
<h3>{escape(figure["title"])}</h3>
<div class="panels" style="--width:{figure["width"]}px">{panels}</div>
<figcaption>{escape(figure["caption"])}</figcaption>
</figure>
"""


def _drawing(panel: dict[str, str], out: Path, prefix: str = "") -> str:
    """Return a drawing for use inside the page; `prefix` keeps ids apart where the same one appears twice."""
    svg = (out / panel["file"]).read_text(encoding="utf-8")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(panel["alt"])}"', 1)
    return (
        svg.replace('id="', f'id="{prefix}-')
        .replace("url(#", f"url(#{prefix}-")
        .replace('href="#', f'href="#{prefix}-')
    )


def _table(table: dict[str, Any]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table["columns"])
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table["rows"])
    return f"""<figure>
<h3>{escape(table["title"])}</h3>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
<figcaption>{escape(table["caption"])}</figcaption>
</figure>
"""


def _environment(results: dict[str, Any]) -> str:
    environment = results["environment"]
    flags = "".join(f" --{name}" for name in ("x64", "quick") if environment[name])
    command = f"python -m experiments run {' '.join(results['planned'])} --seed {environment['seed']}{flags}"
    rows = {
        "Device": f"{environment['device']} ({environment['devices']} of them; {environment['cores']} cores)",
        "Platform": environment["platform"],
        "Python": environment["python"],
        **environment["versions"],
        "Source": environment["source"],
        "Started": environment["started"],
        "Computing time": f"{sum(entry['seconds'] for entry in results['experiments']):.0f} s",
    }
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in rows.items())
    return f"""<section id="run" class="experiment">
<p class="kicker">this run</p>
<h2>How to get these numbers again</h2>
<pre>{escape(command)}</pre>
<dl class="environment">{cells}</dl>
</section>
"""
