"""Runs experiments one after another, and keeps what they found: `results.json`, the figures and `index.html`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jaxconv
from experiments import questions, report
from experiments.core import Claim, Context, Figure, NonFiniteError, Outcome, Panel, slug, usable_devices

DISTRIBUTIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-image", "scikit-learn", "matplotlib")


@dataclass(frozen=True)
class Experiment:
    """An entry of the list. `module` has a function `run(context) -> Outcome`, and is imported only when it is run."""

    name: str
    question: str
    headline: bool = False

    def run(self, context: Context) -> Outcome:
        return importlib.import_module(f"experiments.{self.name}").run(context)


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "identification", "Which kernel does a layer learn from a picture and its filtered copy?", headline=True
        ),
        Experiment("twins", "Do networks learn the same under both conventions, up to the flip?", headline=True),
        Experiment("algebra", "Which algebraic laws does the flip buy, and what holds without it?"),
        Experiment("fourier", "Does convolution become a product of spectra, and what does computing it so cost?"),
        Experiment("frobenius", "Is each output an inner product, and a whole layer one matrix?"),
        Experiment("blur", "Does the flip matter to a blurred face?"),
        Experiment("students", "Do students find a teacher’s filters from starts of their own, and which way round?"),
        Experiment("matching", "Does a cross-correlation map tell where a probe sits in a picture?"),
        Experiment("deblur", "Does the convention matter when blurred photographs are restored?"),
        Experiment(
            "ensembles", "Do networks that never saw each other learn the same, up to the flip, under both conventions?"
        ),
    )
}


def run(names: Sequence[str], context: Context, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Run experiments, write the results after each, and return them as they stand in `results.json`.

    With `resume`, an experiment that `out` already holds is kept if it was run with the same settings, versions, device
    and source code. A `NonFiniteError` ends the run: it is recorded, and raised again once the report is written.
    """
    environment = describe(context)
    kept = _finished(out, environment) if resume else {}
    results: dict[str, Any] = {"environment": environment, "planned": list(names), "stopped": None, "experiments": []}
    for name in names:
        if name in kept:
            results["experiments"].append(kept[name])
            continue
        begin = time.perf_counter()
        try:
            outcome = EXPERIMENTS[name].run(context)
        except NonFiniteError as error:
            results["stopped"] = {"experiment": name, "message": str(error)}
            _write(results, out)
            raise
        seconds = time.perf_counter() - begin
        results["experiments"].append(_record(EXPERIMENTS[name], outcome, seconds, out))
        _write(results, out)
    _write(results, out)
    return results


def describe(context: Context) -> dict[str, Any]:
    """Return what a reader needs in order to judge a result, or to get it again."""
    device, *others = usable_devices()
    return {
        "seed": context.seed,
        "quick": context.quick,
        "x64": context.x64,
        "device": f"{device.platform}: {device.device_kind}",
        "devices": 1 + len(others),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"jaxconv": jaxconv.__version__}
        | {name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
        "source": source_digest(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def source_digest() -> str:
    """Return a short hash of the library's and the experiments' source: other code may give other results."""
    digest = hashlib.sha256()
    for package in (jaxconv.__file__, __file__):
        for path in sorted(Path(package).parent.rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _finished(out: Path, environment: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the experiments that an earlier run with this very environment has finished in `out`, figures and all."""
    path = out / "results.json"
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text())
    same = {**earlier["environment"], "started": None} == {**environment, "started": None}
    return {entry["name"]: entry for entry in earlier["experiments"] if _has_figures(entry, out)} if same else {}


def _has_figures(entry: dict[str, Any], out: Path) -> bool:
    panels = [panel for figure in entry["figures"] for panel in figure["panels"]]
    return all((out / panel["file"]).exists() for panel in [*panels, entry["emblem"]] if panel)


def _record(experiment: Experiment, outcome: Outcome, seconds: float, out: Path) -> dict[str, Any]:
    """Write the figures of an outcome, and return the rest of it as plain data."""
    return {
        "name": experiment.name,
        "question": experiment.question,
        "answer": outcome.answer,
        "method": outcome.method,
        "seconds": round(seconds, 1),
        "highlights": [list(pair) for pair in outcome.highlights],
        "claims": [_record_claim(claim, experiment.name) for claim in outcome.claims],
        "emblem": _save(outcome.emblem, experiment.name, out) if outcome.emblem else None,
        "figures": [_record_figure(figure, experiment.name, out) for figure in outcome.figures],
        "tables": [asdict(table) for table in outcome.tables],
    }


def _record_claim(claim: Claim, experiment: str) -> dict[str, Any]:
    fields = asdict(claim)
    question = questions.of(experiment, claim.name)
    return {"id": fields.pop("name"), **fields, "holds": claim.holds, "question": question}


def _record_figure(figure: Figure, experiment: str, out: Path) -> dict[str, Any]:
    panels = [_save(panel, f"{experiment}-{figure.name}", out) for panel in figure.panels]
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "width": figure.width,
        "panels": panels,
    }


def _save(panel: Panel, prefix: str, out: Path) -> dict[str, str]:
    path = Path("figures") / f"{prefix}-{slug(panel.name)}.svg"
    (out / path.parent).mkdir(parents=True, exist_ok=True)
    (out / path).write_text(panel.svg, encoding="utf-8")
    return {"file": path.as_posix(), "alt": panel.alt}


def _write(results: dict[str, Any], out: Path) -> None:
    """Replace `results.json` and `index.html`; an interruption leaves the old or the new file, never half of one."""
    results["holds"] = all_hold(results)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("results.json", json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)),
        ("index.html", report.page(results, out)),
    ):
        temporary = out / f"{name}.part"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(out / name)


def all_hold(results: dict[str, Any]) -> bool:
    """Tell whether every planned experiment has finished and every claim holds."""
    finished = [entry["name"] for entry in results["experiments"]]
    return finished == results["planned"] and all(c["holds"] for e in results["experiments"] for c in e["claims"])
