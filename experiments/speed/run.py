"""Run the measurements of `python -m experiments speed`, and write what they found."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from experiments.speed import calls, cores, loops, machine, measure, memory, models, records, summary, tables
from experiments.speed.cases import Case, registry, select
from experiments.speed.operations import Direction
from experiments.speed.records import Record, Results

FULL = measure.Effort()
QUICK = measure.Effort(budget=0.1, rivals=3.0, patience=0.5)
# Further measurements that are chosen by name, like cases.
OTHERS = ("loops", "models", "memory", "calls")
# Seconds to wait, in all, for cores that have moved apart; the quick form takes them as they are.
PATIENCE = 300.0

Task = tuple[Case, Direction, str]


def show(names: Sequence[str]) -> None:
    """List cases."""
    chosen = select(names) if names else list(registry().values())
    width = max(len(case.name) for case in chosen)
    for case in chosen:
        note = f"  {case.issue}: {case.what}" if case.issue else ""
        print(f"{'*' if case.quick else ' '} {case.name:{width}}  {case.group:10}  {case.operation}{note}")
    if not names:
        print(f"  {', '.join(OTHERS)}: steps inside loops, training steps of models, peak memory, cost of calls")
        print("* also in the quick form")


def run(names: Sequence[str], *, quick: bool, dtypes: tuple[str, ...], runs: int, results: Path, out: Path) -> Results:
    """Measure and write the page.

    Parameters
    ----------
    names
        Names, groups or patterns of cases, and those of `OTHERS`; everything if empty.
    quick
        Whether to measure the quick cases with little effort.
    dtypes
        Measured instead of the cases' own, if any.
    runs
        How often a case must be slower than a peer to count as a loss.
    results, out
        Folders of the measurements, which are written as they come, and of the page.

    Raises
    ------
    UnknownCaseError
        If a name is unknown.
    """
    others = [name for name in OTHERS if name in names] if names else list(OTHERS)
    named = [name for name in names if name not in OTHERS]
    cases = select(named) if named or not names else []
    if not names:
        cases = [case for case in registry().values() if case.quick or not quick]
    found = Results({**machine.setting(), "quick": quick, "runs": runs, "names": list(names)})
    results.mkdir(parents=True, exist_ok=True)
    with (results / "measurements.jsonl").open("w") as file:
        file.write(records.line(found.setting))
        effort = QUICK if quick else FULL
        measure.warm_up()
        cores.have_patience(0.0 if quick else PATIENCE)
        _measure(tasks(cases, quick, dtypes), effort, found, file, verbose=bool(names))
        _repeat_losses(runs, found, file)
        _measure_others(others, quick, found, file)
    page = tables.write(found, out)
    print(summary.text(found))
    print(f"\npage: {page}\nmeasurements: {results / 'measurements.jsonl'}")
    return found


def render(paths: Sequence[Path], out: Path) -> None:
    """Write the page from files of earlier measurements."""
    print(f"page: {tables.write(records.read(paths), out)}")


def tasks(cases: Sequence[Case], quick: bool, dtypes: tuple[str, ...] = ()) -> list[Task]:
    """Return what to measure; the quick form takes one dtype and, except of complaints, one direction of each case."""
    found = []
    for number, case in enumerate(cases):
        directions = case.directions
        if quick and case.source != "complaint":
            directions = (directions[number % len(directions)],)
        kinds = dtypes or (case.dtypes[:1] if quick else case.dtypes)
        found += [(case, direction, dtype) for dtype in kinds for direction in directions]
    return found


def _measure(todo: Sequence[Task], effort: measure.Effort, found: Results, file: TextIO, verbose: bool = False) -> None:
    with tqdm(todo, unit="task", disable=verbose or not todo) as bar:
        for case, direction, dtype in bar:
            bar.set_postfix_str(case.name)
            record = measure.record(case, direction, dtype, effort)
            _keep(record, found, file)
            if verbose:
                print(tables.plain(record) + "\n", flush=True)


def _repeat_losses(runs: int, found: Results, file: TextIO) -> None:
    """Measure again what was slower than a peer, until it is not or has been so in as many runs."""
    effort = dataclasses.replace(FULL, rivals=0.0)
    for number in range(2, runs + 1):
        todo = [_task(record) for record in summary.losses(found.records, runs=number - 1)]
        if todo:
            print(f"run {number} of what was slower than a peer")
            _measure(todo, effort, found, file)


def _task(record: Record) -> Task:
    case = registry()[record.case]
    return case, next(d for d in case.directions if d == record.direction), record.dtype


def _measure_others(names: Sequence[str], quick: bool, found: Results, file: TextIO) -> None:
    if "loops" in names:
        dtypes = ("float32",) if quick else ("float32", "float64")
        chosen = [(case, dtype) for case in loops.CASES if case.quick or not quick for dtype in dtypes]
        for case, dtype in tqdm(chosen, desc="loops", unit="case"):
            budget = (QUICK if quick else FULL).budget
            for loop in loops.measure(case, dtype, budget, algorithms=not quick):
                _keep(loop, found, file)
    if "models" in names:
        for case in tqdm(models.CASES[:1] if quick else models.CASES, desc="models", unit="model"):
            for step in models.measure(case, (QUICK if quick else FULL).budget * models.EFFORT):
                _keep(step, found, file)
    if "memory" in names:
        for name, direction in tqdm(memory.CHOSEN[:1] if quick else memory.CHOSEN, desc="memory", unit="case"):
            for peak in memory.measure_all(registry()[name], direction):
                _keep(peak, found, file)
    if "calls" in names:
        for call in calls.measure():
            _keep(call, found, file)


def _keep(item: Any, found: Results, file: TextIO) -> None:
    found.add(item)
    file.write(records.line(item))
    file.flush()
