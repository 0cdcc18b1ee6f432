"""The measurements of speed: well-formed cases, peers that compute the same, arithmetic of the page. No timing."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax import lax

pytest.importorskip("scipy")

from experiments import cli
from experiments.speed import (
    calls,
    cases,
    cores,
    loops,
    measure,
    memory,
    models,
    peers,
    records,
    run,
    summary,
    tables,
    timing,
)
from experiments.speed.cases import Case
from experiments.speed.operations import DIRECTIONS, Layer, Signal, operand_names, transposed
from experiments.speed.records import Loop, Memory, Record, Results, Step, Timing
from experiments.speed.reference import reference
from jaxconv import _measure, nn

SETTING = {
    "date": "2026-01-01",
    "processor": "none",
    "cores": 2,
    "load": 0.0,
    "platform": "cpu",
    "python": "3.11",
    "versions": {"jax": "0"},
    "missing": ["torch"],
    "quick": False,
    "runs": 3,
}
ALL = list(cases.registry().values())


# --- cases -----------------------------------------------------------------------------------------------------------


def test_every_group_has_a_sweep_and_whoever_has_a_target_a_race() -> None:
    assert {case.group for case in ALL if case.source == "sweep"} == set(cases.GROUPS)
    raced = {case.group for case in ALL if case.source == "race"}
    assert {group for target in summary.TARGETS for group in target.groups} <= raced


def test_complaints_name_their_issue() -> None:
    for case in ALL:
        if case.source == "complaint":
            assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", case.issue), case.name
            assert case.what, case.name


@pytest.mark.parametrize("group", cases.GROUPS)
def test_shapes_of_layers_are_those_of_jax(group: str) -> None:
    for case in ALL:
        operation = case.operation
        if case.group == group and isinstance(operation, Layer):
            x, w = (jax.ShapeDtypeStruct(operation.shapes[name], np.float32) for name in "xw")
            forward = functools.partial(peers.layer, lax.conv_general_dilated, operation)
            result = jax.eval_shape(peers.directed(forward, operation, "forward"), x, w)
            assert result.shape == operation.shapes["y"], case.name


@pytest.mark.parametrize(("mode", "length"), [("full", 12), ("same", 9), ("valid", 6)])
def test_shapes_of_signals(mode, length: int) -> None:
    assert Signal((9,), (4,), mode).shapes["y"] == (length,)
    assert Signal((9,), (4,), mode, batch=2).shapes == {"x": (2, 9), "w": (4,), "y": (2, length)}
    with pytest.raises(ValueError, match=r"in1 must be as large as in2 on every axis, got \(3,\) and \(4,\)"):
        Signal((3,), (4,), mode)


def test_race_is_drawn_anew_by_another_seed() -> None:
    from experiments.speed.sweeps import race

    assert race(1, shapes=1) == race(1, shapes=1)
    assert race(1, shapes=1) != race(2, shapes=1)


def test_selection() -> None:
    assert [case.name for case in cases.select(["c4"])] == ["c4"]
    assert {case.group for case in cases.select(["depthwise"])} == {"depthwise"}
    assert len(cases.select(["a16*"])) == 2
    with pytest.raises(ValueError, match=r"no case is named 'signal-1000x4'; did you mean signal-1000x"):
        cases.select(["signal-1000x4"])


def test_quick_tasks() -> None:
    assert len(run.tasks([case for case in ALL if case.quick], quick=True)) < 60
    case = cases.registry()["a8"]
    assert run.tasks([case], quick=True) == [(case, direction, "float32") for direction in DIRECTIONS]
    assert len(run.tasks([case], quick=False)) == 6
    assert run.tasks([case], quick=False, dtypes=("float16",)) == [(case, d, "float16") for d in DIRECTIONS]


# --- peers -----------------------------------------------------------------------------------------------------------

TINY = {
    "signal": Signal((9, 8), (3, 2), "same"),
    "layer": Layer(2, (7,), 2, 4, (3,), strides=(2,), groups=2, models=2),
    "transposed": Layer(
        1, (3, 2), 2, 3, (4, 3), padding=transposed((4, 3), (1, 1)), lhs_dilation=(2, 2), channels_last=False
    ),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", TINY)
def test_peers_compute_what_the_definition_says(name: str, direction) -> None:
    operation = TINY[name]
    rng = np.random.default_rng(0)
    first, second, _ = operand_names(direction)
    a, b = (rng.standard_normal(operation.shapes[kind]) for kind in (first, second))
    exact = reference(operation, direction, a, b)
    assert np.all(exact.magnitude > 0)
    found = peers.ways(operation, direction)
    assert {"jaxconv", "jax"} <= {way.library for way in found}
    for way in found:
        fn = jax.jit(way.fn) if way.traced else way.fn
        errors = exact.errors(way.read(fn(*way.prepare(a, b))))
        assert errors.relative < 1e-14, (way.library, way.name)
        assert errors.local < 1e-14, (way.library, way.name)


def test_errors_are_seen() -> None:
    operation = TINY["signal"]
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(operation.shapes[name]) for name in "xw")
    exact = reference(operation, "forward", x, w)
    way = peers.ours(operation, "forward")
    wrong = np.array(way.read(way.fn(*way.prepare(x, w))))
    wrong[exact.index[0][3], 0, 0, exact.index[3][3], exact.index[4][3]] += 1e-3
    largest = np.abs(wrong).max()
    assert exact.errors(wrong).relative == pytest.approx(1e-3 / largest, rel=1e-6)


def test_missing_peer_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    absent = ("torch", "scipy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else real(name))
    assert peers.missing() == ["scipy", "torch"]
    assert {way.library for way in peers.ways(TINY["signal"], "forward")} == {"jaxconv", "jax"}
    assert "Not installed, hence left out: torch." in tables.render(Results(SETTING))


def test_forced_method_concerns_one_direction() -> None:
    operation = Signal((64,), (5,))
    for direction in DIRECTIONS:
        first, second, _ = operand_names(direction)
        shapes = [jax.ShapeDtypeStruct(operation.shapes[name], np.float32) for name in (first, second)]
        (plan,) = jax_plan(peers.ours(operation, direction, "fft").fn, *shapes)
        assert plan.forward.chosen == "fft"


def jax_plan(fn, *shapes):
    import jaxconv

    return jaxconv.plan(fn, *shapes, platform="cpu")


# --- measuring -------------------------------------------------------------------------------------------------------


def test_repeated_runs_are_neither_merged_nor_left_out() -> None:
    operation = Signal((50,), (4,))
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(operation.shapes[name]).astype(np.float32) for name in "xw")
    fft = next(way.fn for way in peers.ways(operation, "forward") if "fftconvolve" in way.name)
    once = jax.jit(fft).lower(x, w).compile()
    zero = np.zeros((), np.float32)
    thrice = jax.jit(_measure.repeated(fft, 3, jax.default_backend())).lower(x, w, zero).compile()
    assert thrice.cost_analysis()["flops"] == pytest.approx(3 * once.cost_analysis()["flops"], rel=0.01)
    call = _measure.chained(fft, 3, (x, w))
    for result in (*call(), *call(), *thrice(x, w, zero)[0]):
        np.testing.assert_array_equal(result, once(x, w))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the compiler for CPUs")
def test_operands_change_where_they_stand() -> None:
    """Copies of them would take longer than many convolutions."""
    x, w, zero = np.ones(5000, np.float32), np.ones(3, np.float32), np.zeros((), np.float32)
    several = _measure.repeated(lambda x, w: jax.numpy.convolve(x, w, "valid"), 4, "cpu")
    text = jax.jit(several, donate_argnums=(0, 1)).lower(x, w, zero).compile().as_text()
    assert text.count(" convolution(") == 4
    assert text.count(" copy(") == 0


def test_interleaved() -> None:
    order = []
    samples = timing.interleaved([lambda i=i: order.append(i) for i in range(3)], [0.0] * 3, budget=0.0)
    assert [len(times) for times in samples] == [5, 5, 5]
    assert sorted(order[:3]) == [0, 1, 2]
    # Once the calls are known to be short, an untimed one precedes each sample.
    assert all(sorted(order[i : i + 6]) == [0, 0, 1, 1, 2, 2] for i in range(3, 27, 6))
    assert order[3::2] == order[4::2]


@pytest.mark.parametrize(("patience", "probes", "samples"), [(0.0, 0, 1), (1.0, 9, 3)])
def test_cores_that_move_apart(patience: float, probes: int, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are timed again if their cores have moved apart, after waiting for them, if anybody has patience."""
    seconds = iter([1e-7, 3e-7, 3e-7, 1.1e-7, 3e-7, 3e-7, 3e-7, 1e-7, 3e-7, 3e-7])
    seen = []
    monkeypatch.setattr(cores, "seconds_between", lambda: seen.append(next(seconds)) or seen[-1])
    monkeypatch.setattr(cores, "PAUSE", 1e-3)
    monkeypatch.setattr(cores, "_closest", float("inf"))
    cores.have_patience(patience)
    runs = []
    timing.interleaved([lambda: runs.append(len(seen))], [0.0], budget=0.0)
    cores.have_patience(0.0)
    assert len(seen) == probes
    assert len(set(runs)) == samples


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1e-7, *[3e-7] * 99])
    monkeypatch.setattr(cores, "seconds_between", lambda: next(seconds))
    monkeypatch.setattr(cores, "PAUSE", 1e-3)
    monkeypatch.setattr(cores, "_closest", float("inf"))
    cores.have_patience(5.5e-3)
    cores.wait_until_close()
    cores.wait_until_close()
    assert len(list(seconds)) == 99 - 6


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores of Linux")
def test_time_between_cores() -> None:
    usable = os.sched_getaffinity(0)
    seconds = cores.seconds_between()
    assert seconds is not None
    assert 1e-9 < seconds < 1e-2
    assert os.sched_getaffinity(0) == usable


def test_all_ways_of_a_short_case_are_repeated_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise what any call takes would count for some and not for others."""
    monkeypatch.setattr(_measure, "LONGEST_COMPILATION", 1000.0)
    monkeypatch.setattr(measure, "LONGEST", 1.0)
    case = Case("tiny", "1-D", Signal((4000,), (3,)))
    record = measure.record(case, "forward", "float32", measure.Effort(budget=0.0, rivals=0.0))
    (repeats,) = {timing.repeats for timing in record.timings}
    assert 1 < repeats <= _measure.MOST_REPEATS


def test_record_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "missing", lambda: ["scipy", "torch"])
    case = Case("tiny", "1-D", Signal((40,), (3,)), patience=1e-8)
    record = measure.record(case, "forward", "float32", measure.Effort(budget=0.0, rivals=0.0))
    assert record.algorithm in ("shift", "xla", "toeplitz")
    assert record.ours.local <= record.bound
    assert {t.name for t in record.timings if t.library == "jax"} == {"scipy.signal.fftconvolve"}
    assert [reason.split(":")[0] for reason in record.left_out] == ["jax scipy.signal.convolve", "jax numpy.convolve"]


@pytest.mark.parametrize("what", ["forward", "training"])
def test_loop(what) -> None:
    case = loops.LoopCase("tiny", what, Signal((16,), (3,), "same"))
    (loop,) = loops.measure(case, "float32", budget=0.0, algorithms=False)
    assert loop.method == "auto"
    assert min(loop.outside, loop.inside, loop.jax_outside, loop.jax_inside) > 0


def test_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "missing", lambda: ["torch"])
    monkeypatch.setattr(models, "COMPILATIONS", 1)
    build = lambda **layers: nn.CNN(1, 10, image_shape=(4, 4), widths=(3,), **layers)  # noqa: E731
    case = models.ModelCase("cnn", "tiny", build, (2, 4, 4, 1), 10, 1.0)
    ours, flax = models.measure(case, budget=0.0)
    assert (ours.library, flax.library) == ("jaxconv", "flax")
    assert min(ours.alone, ours.inside, ours.compile_seconds, flax.inside) > 0
    with pytest.raises(RuntimeError, match=r"cnn: losses of jaxconv are \("):
        list(models.measure(dataclasses.replace(case, build=_different), budget=0.0))


def _different(conv: Any = nn.Conv, **layers: Any) -> nn.CNN:
    return nn.CNN(1, 10, image_shape=(4, 4), widths=(3 if conv is nn.Conv else 2,), conv=conv, **layers)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("case", models.CASES, ids=lambda case: case.name)
def test_models_in_torch(case: models.ModelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.speed import models_torch

    monkeypatch.setattr(models, "COMPILATIONS", 1)
    torch.set_num_threads(1)  # more would wait for those of JAX at every operation
    case = dataclasses.replace(case, images=(2, *case.images[1:]))
    batch = case.batch()
    program = models._Program(case, "flax", batch)
    theirs = models_torch.Program(case.name, nnx.to_pure_dict(program.params), *batch, models.RATE)
    np.testing.assert_allclose(theirs.losses(), program.losses(), rtol=models.TOLERANCE)


def test_peak_memory() -> None:
    case = Case("tiny", "1-D", Signal((200_000,), (3,)))
    peak = memory.peak(case, "forward", "float64", "jaxconv", "jaxconv")
    assert peak is None or 0 <= peak < 2**30


def test_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CALLS", 1)
    assert calls.measure(rounds=1)[0].beyond_empty == 0.0


# --- summary and page ------------------------------------------------------------------------------------------------


def synthetic(case: str, direction: str = "forward", *, error: float = 1e-8, **milliseconds: float) -> Record:
    """Return a record with one way of each library, of the given times."""
    timings = tuple(
        Timing(library, f"{library}'s", ms * 1e-3, 0.1, ms * 1e-3, 5, 1, 0.2, error, error, error)
        for library, ms in milliseconds.items()
    )
    return Record(case, direction, "float32", timings, "shift", 1e-6)


def test_geometric_mean() -> None:
    assert summary.geometric_mean([1.0, 4.0, 2.0]) == pytest.approx(2.0)
    assert np.isnan(summary.geometric_mean([]))


def test_ratio_and_regret() -> None:
    record = synthetic("c4", jaxconv=2.0, jax=8.0, torch=6.0, own=1.0)
    assert record.ratio("jax") == 4.0
    assert record.ratio(*peers.PEERS) == 3.0
    assert record.ratio("scipy") is None
    assert record.regret == 2.0
    assert dataclasses.replace(record, algorithm=None).regret is None
    assert synthetic("c4", jaxconv=2.0, jax=8.0).regret is None


def test_losses_must_repeat() -> None:
    signal, layer = "signal-1000x3", "dense-2x16x16x3-3x3x8"
    slower = synthetic(signal, jaxconv=1.2, jax=1.0)
    assert summary.is_loss(slower)
    assert not summary.is_loss(synthetic(signal, jaxconv=1.05, jax=1.0))
    assert not summary.is_loss(synthetic(signal, jaxconv=0.15, jax=0.1))  # too short to tell
    assert summary.is_loss(synthetic(signal, jaxconv=1.2, jax=2.0, torch=1.0))
    assert summary.is_loss(synthetic(layer, jaxconv=1.06, jax=1.0))
    assert not summary.is_loss(synthetic(layer, jaxconv=1.0, jax=1.0, torch=0.5))  # of layers, only to JAX
    assert summary.losses([slower, slower], runs=3) == []
    assert summary.losses([slower, slower, slower], runs=3) == [slower]
    assert summary.losses([slower, slower, synthetic(signal, jaxconv=1.0, jax=1.0)], runs=3) == []


def test_ratios_of_the_race_only() -> None:
    measured = [
        synthetic("race-signal-1", jaxconv=1.0, jax=4.0),
        synthetic("race-signal-1", jaxconv=1.0, jax=1.0),  # a further run
        synthetic("race-signal-2", "input", jaxconv=1.0, jax=9.0),
        synthetic("signal-1000x3", jaxconv=1.0, jax=100.0),
    ]
    assert summary.ratios(measured, ["1-D"], peers.PEERS, source="race", forward=True) == [4.0]
    assert summary.ratios(measured, ["1-D"], peers.PEERS, source="race", forward=False) == [9.0]


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ({"jaxconv": 1.0, "jax": 6.0, "torch": 0.5}, "yes"),
        ({"jaxconv": 1.0, "jax": 2.0, "torch": 0.95}, "yes"),
        ({"jaxconv": 1.0, "jax": 2.0, "torch": 0.5}, "no"),
        ({"jaxconv": 1.0, "jax": 1.2, "torch": 1.0}, "gone"),
        ({"jaxconv": 1.0, "torch": 1.0}, "–"),
    ],
)
def test_complaints(times: dict[str, float], verdict: str) -> None:
    assert summary.answered(synthetic("c4", **times)) == verdict


def test_large_errors() -> None:
    fine = synthetic("c4", jaxconv=1.0, jax=1.0)
    ours, jax = fine.timings
    worse = dataclasses.replace(fine, timings=(dataclasses.replace(ours, local=9e-7, relative=9e-7), jax))
    beyond = dataclasses.replace(fine, bound=1e-9)
    assert summary.large_errors([fine]) == []
    assert summary.large_errors([worse]) == ["c4 forward float32: 9.0e-07, where jax has 1.0e-08"]
    assert summary.large_errors([beyond]) == ["c4 forward float32: beyond the stated bound (1.0e-09)"]


def results() -> Results:
    found = Results(SETTING)
    found.add(synthetic("c4", jaxconv=1.0, jax=6.0, own=2.0))
    for taps in (3, 16, 64):
        found.add(synthetic(f"signal-30000x{taps}", jaxconv=1.0, jax=3.0, scipy=2.0, own=0.5))
    found.add(dataclasses.replace(synthetic("race-image-1", jaxconv=1.0, jax=3.0), left_out=("torch x: too slow",)))
    found.add(Loop("loop-layer", "forward", "direct", "float32", 1e-3, 2e-3, 1e-3, 4e-3))
    found.add(Step("cnn", "jaxconv", "float32", 1e-3, 1e-3, 2.0))
    found.add(Step("cnn", "flax", "float32", 2e-3, 4e-3, 1.0))
    found.add(Step("cnn", "torch", "float32", 3e-3, None, None))
    found.add(Memory("a12", "forward", "float32", "jaxconv", "jaxconv", 2**20, 200 * 2**20))
    found.add(records.Call("jaxconv.signal.convolve", 2e-5, 1.5e-5))
    return found


def test_page(tmp_path: Path) -> None:
    page = tables.write(results(), tmp_path).read_text()
    assert page.startswith("<!-- Generated by")
    assert "| 30000 * 16, full | forward | float32 | 1 ±10%, 1e-08 | shift | 3 ±10%, 1e-08 `jax's` |" in page
    assert "[jax-ml/jax#23085](https://github.com/jax-ml/jax/issues/23085)" in page
    assert "2-D, forward: 3.00 times as fast as the best of all peers" in page
    assert "at most (loop-layer, direct, float32; target 1.1)" in page
    assert (
        "cnn is 2.00 times (target 1, reached) as fast as with the layers of Flax, 4.00 times (target 5, missed)"
        in page
    )
    assert "2.00 times as long to compile (target at most 1.5, missed); it is 3.00 times as fast as torch." in page
    assert "Peak memory beyond 4 times the arrays and 64 MiB: 1 (a12 forward)." in page
    assert "| race-image-1 | torch x: too slow |" in page
    figures = re.findall(r"\]\((performance/.*?\.svg)\)", page)
    assert figures == ["performance/crossover-1d-30000-float32.svg", "performance/ratios.svg"]
    assert all((tmp_path / figure).stat().st_size > 1000 for figure in figures)


def test_tables_have_as_many_cells_in_each_row() -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", tables.render(results()), flags=re.MULTILINE)
    assert len(blocks) >= 6
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_measurements_are_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "measurements.jsonl"
    found = results()
    items = (*found.records, *found.loops, *found.steps, *found.memory, *found.calls)
    file.write_text("".join(map(records.line, (found.setting, *items))))
    assert records.read([file]) == found
    file.write_text(records.line(found.records[0]))
    with pytest.raises(ValueError, match="does not start with the setting"):
        records.read([file])


# --- command line ----------------------------------------------------------------------------------------------------


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["speed", "nothing-like-it"]) == 2
    assert "no case is named 'nothing-like-it'" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["speed", "--list", "c4"]) == 0
    assert "jax-ml/jax#23085: patches of a vision transformer" in capsys.readouterr().out
