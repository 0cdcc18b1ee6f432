"""Calibration: problems of every kind, times of every algorithm, and constants that explain them. No timing."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("scipy")

from experiments import cli
from experiments.speed import calibrate, choices, problems
from experiments.speed.calibrate import Sample
from jaxconv import _store
from jaxconv._algorithms import REGISTRY
from jaxconv._autotune import setting_of

SECONDS = {
    "call": 5e-6,
    "multiply_adds": 2e-11,
    "transforms": 6e-9,
    "transform_flops": 7e-11,
    "transform idle": 8e-12,
    "bytes": 3e-10,
    "fresh": 4e-10,
}


def drawn(count: int, kinds: tuple[str, ...] = problems.KINDS) -> list[problems.Problem]:
    return list(itertools.islice(problems.draw(np.random.default_rng(1), np.dtype("float32"), kinds), count))


@pytest.mark.parametrize("kind", problems.KINDS)
def test_problems_of_a_kind(kind: str) -> None:
    for problem in drawn(3, (kind,)):
        assert not problem.empty
        assert problem.multiply_adds <= problems.MAX_MULTIPLY_ADDS
        assert REGISTRY["xla"].supports(problem) is None


def test_fit_finds_the_constants() -> None:
    fft = REGISTRY["fft"]
    samples = [Sample(p, sum(SECONDS[term] * amount for term, amount in fft.cost(p).terms.items())) for p in drawn(60)]
    constants = calibrate.fit(samples, fft, {})
    predicted = [sum(constants[term] * amount for term, amount in fft.cost(s.problem).terms.items()) for s in samples]
    np.testing.assert_allclose(predicted, [s.seconds for s in samples], rtol=0.1)


def test_constants_of_an_earlier_calibration_count() -> None:
    """They are scaled to the speed of this machine, stay where no time says anything, and yield to many times."""
    fft = REGISTRY["fft"]
    samples = [Sample(p, sum(SECONDS[term] * amount for term, amount in fft.cost(p).terms.items())) for p in drawn(60)]
    before = {"fft": {term: seconds / 3 for term, seconds in SECONDS.items()} | {"other": 1e-9}}
    before["fft"]["multiply_adds"] *= 10
    slower = calibrate._slower({"fft": samples}, before)
    assert slower == pytest.approx(3, rel=0.3)
    scaled = {term: slower * seconds for term, seconds in before["fft"].items()}
    alone = calibrate.fit(samples[:1], fft, {}, scaled)
    assert alone["other"] == pytest.approx(scaled["other"], rel=0.01)
    assert alone["fresh"] == pytest.approx(scaled["fresh"], rel=0.1)
    constants = calibrate.fit(samples, fft, {}, scaled)
    assert constants["transform_flops"] == pytest.approx(SECONDS["transform_flops"], rel=0.2)


def test_fit_subtracts_what_runs_inside() -> None:
    planes, xla = REGISTRY["planes"], REGISTRY["xla"]
    others = {"xla": {"call": 1e-4}}
    able = [p for p in drawn(40, ("volume",)) if planes.supports(p) is None]
    samples = [Sample(p, 1e-4 + 1e-9 * planes.cost(p).terms["bytes"]) for p in able]
    constants = calibrate.fit(samples, planes, others)
    assert constants["bytes"] == pytest.approx(1e-9, rel=0.01)
    assert xla.name in others


def test_constants_bend_to_choose_the_fastest() -> None:
    """What takes `n` and what takes 10, by constants that are off by a factor of two: they cross at 10, not at 20."""
    problems = [
        {"xla": (1e-4 * n, {("xla", "products"): float(n)}), "shift": (1e-3, {("shift", "call"): 1.0})}
        for n in (2, 4, 6, 8, 12, 15, 18, 30)
    ]
    before = {("xla", "products"): 5e-5, ("shift", "call"): 1e-3, ("shift", "other"): 3e-9}
    after = choices.bend(before, problems)
    crossing = 1.1 * after["shift", "call"] / after["xla", "products"]
    assert 8 < crossing < 12
    assert after["shift", "other"] == before["shift", "other"]
    assert choices.bend(before, problems[:0]) == before


def test_gradient_of_what_choices_lose() -> None:
    problems = [
        {
            "xla": (1e-4 * n, {("xla", "call"): 1.0, ("xla", "products"): float(n)}),
            "fft": (3e-4, {("fft", "call"): 2.0}),
        }
        for n in (1, 3, 9)
    ]
    keys = [("xla", "call"), ("xla", "products"), ("fft", "call")]
    some, moved = choices._Choices(problems, keys), np.array([0.1, -0.2, 0.3])
    logarithms = np.log([1e-5, 8e-5, 2e-4])
    _, gradient = some.loss(moved, logarithms)
    for direction, slope in zip(1e-6 * np.eye(3), gradient, strict=True):
        above, below = (some.loss(moved + sign * direction, logarithms)[0] for sign in (1, -1))
        assert (above - below) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_times_are_kept_and_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (layer,) = drawn(1, ("sequence layer",))
    small = [dataclasses.replace(layer, batch=1, input_shape=(9,), kernel_shape=(3,))]
    monkeypatch.setattr(problems, "draw", lambda rng, dtype: itertools.cycle(small))
    monkeypatch.setattr(calibrate, "FEWEST", 0)
    monkeypatch.setattr(calibrate, "BUDGET", 0.0)
    setting = setting_of(jax.devices("cpu")[0])
    (measurement,) = calibrate.measure(1, "float32", 0, setting)
    assert {t.algorithm for t in measurement.timings} == {
        a.name for a in REGISTRY.values() if a.supports(measurement.problem) is None
    }
    assert min(t.measured for t in measurement.timings) > 0
    assert measurement.chosen == min(measurement.timings, key=lambda t: t.measured).algorithm
    times, out = tmp_path / "times.json", tmp_path / "cpu.json"
    _store.save(times, [measurement])
    monkeypatch.setattr(calibrate, "DTYPES", ("float32",))
    monkeypatch.setattr(calibrate, "REGISTRY", {"xla": REGISTRY["xla"]})
    assert cli.main(["calibrate", "--count", "0", "--times", str(times), "--out", str(out)]) == 0
    assert "1 times" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written["quality"]["xla"]["float32"]["times"] == 1
    assert written["seconds"]["xla"]["float32"]["call"] > 0
