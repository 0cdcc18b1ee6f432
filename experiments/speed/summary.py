"""What the measurements come to: geometric means against targets, losses, regret, errors."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.speed import models
from experiments.speed.cases import Case, registry
from experiments.speed.peers import PEERS
from experiments.speed.records import Record, Results

# Shorter cases are dominated by calls: they count neither as losses nor as regret.
LOSS_SECONDS, REGRET_SECONDS = 200e-6, 100e-6
# A complaint is answered if we are so many times faster than JAX, or nearly as fast as the fastest peer.
ANSWERED, NEARLY = 5.0, 1.1
# It still stands if JAX takes so many times longer than the fastest of all.
STANDS = 1.5
REGRET = {"mean": 1.08, "95th percentile": 1.4, "worst": 2.0}
LOOP = 1.1
# Of training steps: inside a loop, how many times as fast as with Flax's layers; and how many times as long to compile.
INSIDE, COMPILE_STEP = 5.0, 1.5
COMPILE_BEYOND, COMPILE_WORST = 0.3, 1.0
MEMORY_FACTOR, MEMORY_FREE = 4, 64 * 2**20
CALL_SECONDS = 30e-6


@dataclasses.dataclass(frozen=True)
class Target:
    """A geometric mean of the times of the fastest of some peers over ours that is aimed at."""

    groups: tuple[str, ...]
    peers: tuple[str, ...]
    at_least: float


TARGETS = (
    Target(("1-D",), PEERS, 2.0),
    Target(("2-D",), PEERS, 2.0),
    Target(("3-D",), PEERS, 2.0),
    Target(("depthwise",), ("jax",), 10.0),
    Target(("dilated",), ("jax",), 5.0),
    Target(("strided",), ("jax",), 3.0),
    Target(("transposed",), ("jax",), 3.0),
    Target(("models",), ("jax",), 3.0),
    Target(("dense",), ("jax",), 1.2),
    Target(("dense",), ("torch",), 0.8),
    Target(("depthwise", "dilated", "strided", "transposed", "models"), ("torch",), 1.0),
)
ONE_CHANNEL = ("1-D", "2-D", "3-D")
NAMES = {"jax": "JAX", "scipy": "SciPy", "torch": "torch"}


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean; NaN of nothing."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan


def first_runs(records: Iterable[Record]) -> list[Record]:
    """Return the first measurement of each task."""
    found: dict[tuple[str, str, str], Record] = {}
    for record in records:
        found.setdefault(record.key, record)
    return list(found.values())


def case_of(record: Record) -> Case:
    """Return a record's case."""
    return registry()[record.case]


def loss_limit(case: Case) -> tuple[tuple[str, ...], float]:
    """Return the peers that a case must not be slower than, and by how much more it may be."""
    return (PEERS, 0.10) if case.group in ONE_CHANNEL else (("jax",), 0.05)


def is_loss(record: Record) -> bool:
    """Whether jaxconv was slower than it should be, in a case that is long enough to tell."""
    peers, margin = loss_limit(case_of(record))
    ratio = record.ratio(*peers)
    return ratio is not None and record.ours.median >= LOSS_SECONDS and ratio < 1 / (1 + margin)


def losses(records: Iterable[Record], runs: int) -> list[Record]:
    """Return the first records of the tasks that were losses in each of their runs, as many runs at least."""
    by_task: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        by_task[record.key].append(record)
    return [found[0] for found in by_task.values() if len(found) >= runs and all(map(is_loss, found))]


def ratios(
    records: Iterable[Record], groups: Sequence[str], peers: Sequence[str], *, source: str, forward: bool
) -> list[float]:
    """Return the ratios of some groups, of forward computations or of gradients."""
    found = []
    for record in first_runs(records):
        case = case_of(record)
        if case.group in groups and case.source == source and (record.direction == "forward") == forward:
            ratio = record.ratio(*peers)
            if ratio is not None:
                found.append(ratio)
    return found


def answered(record: Record) -> str:
    """Tell whether a complaint is answered: 'yes', 'no', or 'gone' if JAX does well today."""
    jax, fastest = record.best("jax"), record.best("jaxconv", *PEERS)
    best = record.ratio(*PEERS)
    if jax is None or fastest is None or best is None:
        return "–"
    if jax.median < STANDS * fastest.median:
        return "gone"
    return "yes" if jax.median >= ANSWERED * record.ours.median or best * NEARLY >= 1 else "no"


def regrets(records: Iterable[Record]) -> list[tuple[float, Record]]:
    """Return the regrets of cases that are long enough, with their records."""
    found = [(record.regret, record) for record in first_runs(records) if record.ours.median >= REGRET_SECONDS]
    return [(regret, record) for regret, record in found if regret is not None]


def large_errors(records: Iterable[Record]) -> list[str]:
    """Name results whose errors are larger than they should be: twice a peer's, or the bound that the plan states."""
    found = []
    for record in first_runs(records):
        ours = record.ours
        name = f"{record.case} {record.direction} {record.dtype}"
        theirs = [timing for timing in record.timings if timing.library == ("scipy" if record.uses_fft else "jax")]
        if record.bound is not None and (ours.norm if record.uses_fft else ours.local) > record.bound > 0:
            found.append(f"{name}: beyond the stated bound ({record.bound:.1e})")
        if not theirs:
            continue
        if record.uses_fft:
            # SciPy may have summed products: only those errors count that an FFT explains.
            worst = max(timing.relative for timing in theirs)
            too_large = ours.relative > max(2 * worst, 4 * _epsilon(record.dtype))
        else:
            too_large = ours.local > 2 * max(timing.local for timing in theirs) + 4 * _epsilon(record.dtype)
        if too_large:
            found.append(f"{name}: {ours.relative:.1e}, where {theirs[0].library} has {theirs[0].relative:.1e}")
    return found


def _epsilon(dtype: str) -> float:
    return {"float64": 2.2e-16, "complex128": 2.2e-16, "float16": 9.8e-4, "bfloat16": 7.8e-3}.get(dtype, 1.2e-7)


def compile_times(records: Iterable[Record]) -> list[tuple[float, float, Record]]:
    """Return the seconds that jaxconv takes to compile, and those beyond JAX, with their records."""
    found = []
    for record in first_runs(records):
        theirs = [t.compile_seconds for t in record.timings if t.library == "jax" and t.compile_seconds is not None]
        if theirs and record.ours.compile_seconds is not None:
            found.append((record.ours.compile_seconds, record.ours.compile_seconds - min(theirs), record))
    return found


def lines(results: Results) -> list[str]:
    """Summarise, one sentence to a line."""
    records = results.records
    found = []
    for target in TARGETS:
        for forward in (True, False):
            values = ratios(records, target.groups, target.peers, source="race", forward=forward)
            if values:
                mean = geometric_mean(values)
                against = "the best of all peers" if target.peers == PEERS else NAMES[target.peers[0]]
                verdict = "reached" if mean >= target.at_least else "missed"
                found.append(
                    f"{', '.join(target.groups)}, {'forward' if forward else 'gradients'}: {mean:.2f} times as fast as "
                    f"{against} (geometric mean of {len(values)} random cases; target {target.at_least:g}, {verdict})."
                )
    lost = losses(records, results.setting["runs"])
    timed = [record for record in first_runs(records) if record.ours.median >= LOSS_SECONDS]
    if timed:
        found.append(f"Slower than a peer: {len(lost)} of {len(timed)} cases of at least 200 µs{_names(lost)}.")
    complaints = [record for record in first_runs(records) if case_of(record).source == "complaint"]
    if complaints:
        verdicts = [answered(record) for record in complaints]
        unanswered = [r for r, verdict in zip(complaints, verdicts, strict=True) if verdict == "no"]
        found.append(
            f"Complaints: {verdicts.count('yes')} answered, {verdicts.count('gone')} gone in today's JAX, "
            f"{len(unanswered)} not answered{_names(unanswered)}."
        )
    found += [*_regret_lines(records), *_other_lines(results)]
    return found


def _regret_lines(records: Sequence[Record]) -> list[str]:
    measured = regrets(records)
    if not measured:
        return []
    values = [regret for regret, _ in measured]
    worst, record = max(measured, key=lambda pair: pair[0])
    return [
        f"The planner's regret over {len(values)} cases of at least 100 µs: geometric mean "
        f"{geometric_mean(values):.2f} (target {REGRET['mean']}), 95th percentile {np.quantile(values, 0.95):.2f} "
        f"(target {REGRET['95th percentile']}), worst {worst:.2f} (target {REGRET['worst']:g}: {record.case} "
        f"{record.direction} {record.dtype})."
    ]


def _other_lines(results: Results) -> list[str]:
    found = []
    compiled = compile_times(results.records)
    if compiled:
        worst, _, slowest = max(compiled, key=lambda row: row[0])
        _, beyond, furthest = max(compiled, key=lambda row: row[1])
        found.append(
            f"Compiling takes {worst:.2f} s at most ({slowest.case} {slowest.direction}; target {COMPILE_WORST:g}) and "
            f"{beyond:.2f} s more than JAX's at most ({furthest.case} {furthest.direction}; target {COMPILE_BEYOND})."
        )
    if results.records:
        large = large_errors(results.records)
        found.append(f"Errors larger than they should be: {len(large)}{_listed(large)}.")
    if results.loops:
        worst = max(results.loops, key=lambda loop: loop.inside / loop.outside)
        found.append(
            f"A step inside a loop takes {worst.inside / worst.outside:.2f} times what it takes outside at most "
            f"({worst.name}, {worst.method}, {worst.dtype}; target {LOOP})."
        )
    found += _step_lines(results)
    over = [m for m in results.memory if m.library == "jaxconv" and (m.peak or 0) > memory_limit(m.operands)]
    if results.memory:
        names = [f"{m.case} {m.direction}" for m in over]
        found.append(f"Peak memory beyond 4 times the arrays and 64 MiB: {len(over)}{_listed(names)}.")
    ours = [call for call in results.calls if call.name.startswith("jaxconv")]
    if ours:
        worst = max(ours, key=lambda call: call.beyond_empty)
        found.append(
            f"A call takes {worst.beyond_empty / 1e-6:.0f} µs more than that of an empty jitted function at most "
            f"({worst.name}; target {CALL_SECONDS / 1e-6:.0f})."
        )
    return found


def _step_lines(results: Results) -> list[str]:
    found = []
    by_name = {(step.model, step.library): step for step in results.steps}
    for case in models.CASES:
        ours, flax = (by_name.get((case.name, library)) for library in ("jaxconv", "flax"))
        if ours is None or flax is None:
            continue
        torch = by_name.get((case.name, "torch"))
        alone = flax.alone / ours.alone
        inside = (flax.inside or math.nan) / (ours.inside or math.nan)
        compiling = (ours.compile_seconds or math.nan) / (flax.compile_seconds or math.nan)
        speed, loop = _against(alone, case.at_least), _against(inside, INSIDE)
        found.append(
            f"A training step of the model {case.name} is {speed} as fast as with the layers of Flax, {loop} inside a "
            f"loop, and takes {compiling:.2f} times as long to compile (target at most {COMPILE_STEP}, "
            f"{_verdict(compiling <= COMPILE_STEP)})"
            + ("." if torch is None else f"; it is {torch.alone / ours.alone:.2f} times as fast as torch.")
        )
    return found


def _against(factor: float, target: float) -> str:
    return f"{factor:.2f} times (target {target:g}, {_verdict(factor >= target)})"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def memory_limit(operands: int) -> int:
    """Return the peak, in bytes, that a call may have."""
    return MEMORY_FACTOR * operands + MEMORY_FREE


def _names(records: Sequence[Record]) -> str:
    return _listed([f"{record.case} {record.direction} {record.dtype}" for record in records])


def _listed(names: Sequence[str]) -> str:
    return f" ({'; '.join(names)})" if names else ""


def text(results: Results) -> str:
    """Summarise in plain text."""
    return "\n".join(lines(results))
