"""Keeps what the article "Convolution or correlation?" quotes: numbers, tables and figures of finished full runs.

The article names claims, as in `{{ fourier/theorem }}` or, as a percentage, `{{ matching/plain-fails% }}`, and includes
figures and tables by their files. Sphinx fills them in from what `write` leaves in docs/_generated, which is committed,
so that the documentation is built without a run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments import report
from experiments.core import slug
from experiments.figures import scientific

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "convolution-or-correlation.md"
GENERATED = DOCS / "_generated"

QUOTE = re.compile(r"\{\{ *([a-z0-9/-]+%?) *\}\}")
INCLUDED = re.compile(r":file: _generated/([a-z0-9-]+)\.html")
HALF = 340  # pixels, about half the width of the text: two drawings stand side by side
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class ArticleError(ValueError):
    """The results are not such as the article may quote, or not all that it quotes."""


def write(folders: Sequence[Path], page: Path = PAGE, out: Path = GENERATED) -> list[Path]:
    """Write all files that the page quotes, remove those that it does not, and return what was written.

    Every number is the least favourable of all runs; figures are those of the first.

    Raises
    ------
    ArticleError
        If a run is a quick one, unfinished, of other source code than the first, or has a claim that fails; or if it
        lacks a claim or a figure that the page names.
    """
    runs = [_read(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        _check(folder, run, runs[0])
    text = page.read_text(encoding="utf-8")
    experiments = combine(runs)
    quotes = _quotes(runs, experiments)
    fragments = _fragments(experiments, folders[0])
    included = set(INCLUDED.findall(text))
    if missing := sorted((set(QUOTE.findall(text)) - set(quotes)) | (included - set(fragments))):
        raise ArticleError(f"{page.name} quotes what {folders[0]} does not contain: {', '.join(missing)}")
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.html"):
        old.unlink()
    files = {"article.json": json.dumps({"runs": _origins(runs), "quotes": quotes}, indent=1, ensure_ascii=False)}
    files |= {f"{name}.html": fragments[name] for name in sorted(included)}
    for name, content in files.items():
        (out / name).write_text(content + "\n", encoding="utf-8")
    return [out / name for name in files]


def combine(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the experiments of the first run, each claim being that of the run in which it came out worst."""
    experiments = []
    for entries in zip(*(run["experiments"] for run in runs), strict=True):
        claims = [max(same, key=_unfavourable) for same in zip(*(entry["claims"] for entry in entries), strict=True)]
        experiments.append({**entries[0], "claims": claims})
    return experiments


def _unfavourable(claim: dict[str, Any]) -> float:
    """Return a number that grows as a claim comes nearer to failing."""
    above = claim["measured"] - claim["threshold"]
    return {"<": above, "<=": above, ">": -above, ">=": -above, "==": abs(above)}[claim["comparison"]]


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.exists():
        raise ArticleError(f"there is no {path}; run `python -m experiments run --all --out {folder}` first")
    return json.loads(path.read_text(encoding="utf-8"))


def _check(folder: Path, run: dict[str, Any], first: dict[str, Any]) -> None:
    names, expected = ([entry["name"] for entry in each["experiments"]] for each in (run, first))
    if run["environment"]["quick"]:
        raise ArticleError(f"{folder} holds a quick run; the article quotes full ones")
    if not run["holds"]:
        failing = [f"{e['name']}/{c['id']}" for e in run["experiments"] for c in e["claims"] if not c["holds"]]
        raise ArticleError(f"{folder} is unfinished, or claims fail: {', '.join(failing) or 'none did'}")
    for what, found, wanted in (
        ("experiments", ", ".join(names), ", ".join(expected)),
        ("source code", run["environment"]["source"], first["environment"]["source"]),
    ):
        if found != wanted:
            raise ArticleError(f"{folder} has other {what} than the first run: {found}, not {wanted}")


def _origins(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = ("seed", "x64", "device", "python", "versions", "source", "started")
    return [{name: run["environment"][name] for name in kept} for run in runs]


def _quotes(runs: Sequence[dict[str, Any]], experiments: list[dict[str, Any]]) -> dict[str, str]:
    """Return what the page may quote, as text, by name."""
    claims = {f"{entry['name']}/{claim['id']}": claim for entry in experiments for claim in entry["claims"]}
    highlights = {
        f"{entry['name']}/highlight-{index}": value
        for entry in experiments
        for index, (value, _) in enumerate(entry["highlights"], 1)
    }
    seeds = [str(run["environment"]["seed"]) for run in runs]
    environment = runs[0]["environment"]
    return {
        "run/which": f"{_number(len(runs))} full run{'s' if len(runs) > 1 else ''}",
        "run/seeds": f"seed{'s' if len(seeds) > 1 else ''} {_listing(seeds)}",
        "run/claims": str(len(claims)),
        "run/controls": str(sum(claim["control"] for claim in claims.values())),
        "run/experiments": _number(len(experiments)),
        "run/device": _device(environment),
        "run/versions": f"jaxconv {environment['versions']['jaxconv']} and JAX {environment['versions']['jax']}",
        **{name: scientific(claim["measured"]) for name, claim in claims.items()},
        **{f"{name}%": _percentage(claim) for name, claim in claims.items() if 0 <= claim["measured"] <= 1},
        **highlights,
    }


def _percentage(claim: dict[str, Any]) -> str:
    """Write a share as one that is not more favourable than what was measured."""
    cut = math.floor if claim["comparison"].startswith(">") else math.ceil
    # Without the dust of binary fractions, so that 0.125 is 12.5%.
    return f"{cut(round(1000 * claim['measured'], 6)) / 10:.1f}%"


def _device(environment: dict[str, Any]) -> str:
    platform, _, kind = environment["device"].partition(": ")
    return f"{environment['cores']} CPU cores" if platform == "cpu" else f"{platform.upper()}, {kind}"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _listing(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _fragments(experiments: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    """Return what the page may include, as HTML, by name: the claims, the figures and the tables of each experiment."""
    fragments = {}
    for entry in experiments:
        fragments[f"{entry['name']}-claims"] = _claims(entry)
        if panel := entry["emblem"]:
            name = f"{entry['name']}-emblem"
            fragments[name] = _figure(name, [panel], HALF, escape(panel["alt"]), folder)
        for figure in entry["figures"]:
            name = f"{entry['name']}-{figure['name']}"
            caption = f"<b>{escape(figure['title'])}.</b> {escape(figure['caption'])}"
            fragments[name] = _figure(name, figure["panels"], figure["width"], caption, folder)
        for table in entry["tables"]:
            fragments[f"{entry['name']}-{slug(table['title'])}"] = _table(table)
    return fragments


def _claims(entry: dict[str, Any]) -> str:
    rows = "\n".join(
        f"<tr><td>{'<b>Control.</b> ' if claim['control'] else ''}{escape(claim['statement'])}</td>"
        f"<td>{escape(report.inequality(claim))}</td></tr>"
        for claim in entry["claims"]
    )
    return f"""<details class="claims"><summary>All {len(entry["claims"])} claims of “{entry["name"]}”</summary>
<table><thead><tr><th>claim</th><th>measured, required</th></tr></thead>
<tbody>
{rows}
</tbody></table></details>"""


def _table(table: dict[str, Any]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table["columns"])
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in table["rows"])
    return f"""<figure class="experiment">
<div class="scroll"><table><thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<figcaption><b>{escape(table["title"])}.</b> {escape(table["caption"])}</figcaption>
</figure>"""


def _figure(name: str, panels: list[dict[str, str]], width: int, caption: str, folder: Path) -> str:
    drawings = "\n".join(f"<div>{_drawing(f'{name}-{i}', panel, folder)}</div>" for i, panel in enumerate(panels))
    return f"""<figure class="experiment">
<div class="panels" style="--width:{HALF if width < 1.4 * HALF else width}px">
{drawings}
</div>
<figcaption>{caption}</figcaption>
</figure>"""


def _drawing(name: str, panel: dict[str, str], folder: Path) -> str:
    """Return a drawing with a name, and with ids that no other drawing of the page has."""
    svg = (folder / panel["file"]).read_text(encoding="utf-8").strip()
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(panel["alt"])}"', 1)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
