"""Measured winners: which are measured, where they are in force, and that compiled programs are those of the winners.

Times are made up, except where it says otherwise, so that the FFT wins where the model would never choose it: whether a
program uses the winner can be read off its text.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxconv
from jaxconv import _autotune, _measure
from jaxconv._algorithms import REGISTRY
from jaxconv._ops import conv
from jaxconv._plan import decide
from jaxconv._simplify import simplify
from jaxconv._spec import groups_in_front, held_by_layers
from jaxconv._tuning import Measurement, Setting, Timing, Tuning, in_force

from .cases import BY_NAME, operands, random
from .methods import problem
from .tolerances import check

CASE = BY_NAME["1d-channels"]


@pytest.fixture
def measured(monkeypatch):
    """Make times up: by name, a second for all others. Returns the problems that were measured, in their order."""

    def set_times(**seconds):
        problems = []

        def prepare(problem, operands):
            name = decide(problem, "cpu").chosen
            problems.append((problem, name))
            return _measure.Trial(lambda: None, 1, [seconds.get(name, 1.0)])

        monkeypatch.setattr(_measure, "prepare", prepare)
        monkeypatch.setattr(_measure, "race", lambda trials: None)
        monkeypatch.setattr(_measure, "HOPELESS_BY_MODEL", float("inf"))
        return problems

    return set_times


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "tuning.json"


@pytest.fixture
def fft(measured, path):
    """The table of a convolution of which the FFT is the fastest in every direction."""
    measured(fft=1e-6)
    return jaxconv.autotune(convolve, *data(), path=path)


def convolve(x, w):
    return conv(x, w, **CASE.options, convention="convolution")


def data(dtype="float32"):
    return tuple(map(jnp.asarray, operands(CASE, dtype)))


def transforms(fn, *args, **options):
    """How many FFTs are in a compiled function."""
    return jax.jit(fn).lower(*args, **options).compile().as_text().count("fft_type=")


# --- where a table is in force ----------------------------------------------------------------------------------------


def test_without_a_scope_nothing_changes(fft):
    assert len(fft) == 3
    assert in_force() is None
    assert transforms(convolve, *data()) == 0


def test_scope_is_part_of_the_key_of_jit(fft):
    """Compiled anew in the scope and used again after it; an equal table is no other."""
    traced = []

    @jax.jit
    def run(x, w):
        traced.append(in_force())
        return convolve(x, w)

    x, w = data()
    for scope, count in ((None, 1), (fft, 2), (None, 2), (Tuning(list(fft)), 2), (Tuning(), 3)):
        with jaxconv.tuned(scope):
            y = run(x, w)
        check("value", y, x, w, CASE, "convolution", "float32", fft=True)
        assert len(traced) == count
    with jaxconv.tuned(fft):
        assert "stablehlo.fft" in run.lower(x, w).as_text()
    assert "stablehlo.fft" not in run.lower(x, w).as_text()


def test_public_functions_are_not_stale(measured, path):
    """They are compiled once for each shape, by a `jit` of their own."""
    measured(fft=1e-6)
    x, w = random((40,), "float32", "x"), random((5,), "float32", "w")
    function = functools.partial(jaxconv.signal.convolve, mode="same")
    plain = function(x, w)
    table = jaxconv.autotune(function, x, w, path=path)
    with jaxconv.tuned(table):
        assert transforms(function, x, w) > 0
        tuned = function(x, w)
    assert transforms(function, x, w) == 0
    np.testing.assert_allclose(tuned, plain, rtol=0, atol=1e-5)
    assert np.any(np.asarray(tuned) != np.asarray(plain)), "not computed in another way"
    np.testing.assert_array_equal(function(x, w), plain)


def test_decorator(fft):
    x, w = data()
    run = jaxconv.tuned(fft)(convolve)
    assert run.__name__ == "convolve"
    assert transforms(run, x, w) > 0
    assert transforms(jax.grad(lambda w: run(x, w).sum()), w) > 0
    with jaxconv.tuned(Tuning()):
        assert transforms(run, x, w) > 0
    assert in_force() is None


def test_scopes_nest(fft):
    with jaxconv.tuned(fft):
        with jaxconv.tuned(None):
            assert transforms(convolve, *data()) == 0
        with pytest.raises(KeyError), jaxconv.tuned(Tuning()):
            raise KeyError
        assert in_force() is fft
        assert transforms(convolve, *data()) > 0


def test_pullback_outlives_the_scope(fft):
    """The gradients, and theirs, of what was differentiated in a scope, whenever they are compiled."""
    x, w = data()
    ct = random(CASE.y_shape, "float32", "ct")
    with jaxconv.tuned(fft):
        y, pull = jax.vjp(convolve, x, w)
    dx, dw = pull(ct)
    check("input", dx, ct, w, CASE, "convolution", "float32", fft=True)
    check("kernel", dw, ct, x, CASE, "convolution", "float32", fft=True)
    assert transforms(pull, ct) == 6
    assert transforms(jax.linear_transpose(lambda ct: pull(ct)[0], y), dx) > 0


def test_pullback_in_a_scope(fft):
    """What was differentiated before has no table to keep, so that its gradients take the one in force."""
    _, pull = jax.vjp(convolve, *data())
    ct = random(CASE.y_shape, "float32", "ct")
    assert transforms(pull, ct) == 0
    with jaxconv.tuned(fft):
        assert transforms(pull, ct) == 6


TRANSFORMATIONS = {
    "jit": lambda f: jax.jit(jax.jit(f)),
    "grad": lambda f: jax.grad(lambda x, w: jnp.sum(f(x, w) ** 2), (0, 1)),
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (x, w)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(lambda x, w: jnp.sum(f(x, w) ** 2)), 1),
    "scan": lambda f: lambda x, w: jax.lax.scan(lambda c, x: (c, f(x, w)), 0, jnp.stack([x, x]))[1],
    "vmap of x": lambda f: lambda x, w: jax.vmap(f, (0, None))(jnp.stack([x, x, x]), w),
    "vmap of both": lambda f: lambda x, w: jax.vmap(f)(jnp.stack([x, x, x]), jnp.stack([w, w, w])),
    "gradients of samples": lambda f: (
        lambda x, w: jax.vmap(jax.grad(lambda x, w: jnp.sum(f(x, w) ** 2), (0, 1)), (0, None))(jnp.stack([x, x, x]), w)
    ),
    "hessian": lambda f: lambda x, w: jax.jvp(jax.grad(lambda w: jnp.sum(f(x, w) ** 2)), (w,), (w,)),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformed_functions(measured, path, name):
    """Measured as they are lowered, which under `vmap` is not as they were bound; then every convolution is an FFT."""
    measured(fft=1e-6)
    function, (x, w) = TRANSFORMATIONS[name](convolve), data()
    assert transforms(function, x, w) == 0
    table = jaxconv.autotune(function, x, w, gradients=False, path=path)
    with jaxconv.tuned(table):
        report = jaxconv.plan(function, x, w, platform="cpu")
        assert {plan.forward.source for plan in report} == {"measured"}
        # Three transforms each; `jit` lowers equal ones once.
        distinct = {simplify(plan.problem)[0] for plan in report}
        assert transforms(function, x, w) >= 3 * len(distinct)
        result = jax.jit(function)(x, w)
    plain = function(x, w)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_shapes_that_were_not_measured(fft):
    """Another batch is another problem, which the model decides."""
    x, w = data()
    with jaxconv.tuned(fft):
        (plan,) = jaxconv.plan(convolve, jnp.concatenate([x, x], 1), w, platform="cpu")
    assert plan.forward.source == "modelled"


def test_inside_shard_map(measured, path, two_devices):
    """There, what is measured and looked up is each device's share."""
    measured(fft=1e-6)
    x, w = data()
    x = jnp.concatenate([x, x], 1)
    mesh = Mesh(np.array(two_devices), ("i",))
    batch = PartitionSpec(None, "i")
    sharded = jax.shard_map(convolve, mesh=mesh, in_specs=(batch, PartitionSpec()), out_specs=batch)
    table = jaxconv.autotune(sharded, x, w, gradients=False, path=path)
    assert [m.problem.batch for m in table] == [CASE.n]
    with jaxconv.tuned(table):
        assert transforms(sharded, x, w) > 0


def test_platform_is_part_of_the_key(fft):
    """One exported program holds each platform's own choice."""
    lower = jax.jit(jaxconv.tuned(fft)(convolve)).trace(*data()).lower
    assert "stablehlo.fft" in lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.fft" not in lower(lowering_platforms=("cuda",)).as_text()


# --- what is measured -------------------------------------------------------------------------------------------------


def test_real_times(path):
    """Nothing made up: every candidate that was tried has a time, and the winner the shortest."""
    x, w = random((300,), "float32", "x"), random((5,), "float32", "w")
    function = functools.partial(jaxconv.signal.convolve, mode="same")
    (found,) = jaxconv.autotune(function, x, w, gradients=False, path=path)
    times = {t.algorithm: t.measured for t in found.timings if t.measured is not None}
    assert len(times) > 1
    assert all(0 < seconds < 1 for seconds in times.values())
    assert found.chosen == min(times, key=times.__getitem__)
    assert all(bool(t.note) == (t.algorithm != found.chosen) for t in found.timings)
    with jaxconv.tuned(Tuning([found])):
        np.testing.assert_allclose(function(x, w), np.convolve(x, w, "same"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("of", ["forward", "input_gradient", "kernel_gradient"])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_is_timed(channels_last, mapped, of):
    """Operands as the caller holds them, and several times in one program: the same results."""
    p = problem(CASE, "float32")
    held = held_by_layers(len(CASE.space), channels_last=channels_last)
    held = groups_in_front(held) if mapped else held
    shapes = {"x": p.x_shape, "w": p.w_shape, "y": p.y_shape}
    shapes = {name: tuple(shapes[name][a] for a in order) for name, order in zip("xwy", held, strict=True)}
    p = dataclasses.replace(p, spec=dataclasses.replace(p.spec, held=held))
    p = p if of == "forward" else getattr(p, of)()
    first, second, result = {"forward": "xwy", "input_gradient": "ywx", "kernel_gradient": "xyw"}[of]
    assert _measure.held_shapes(p) == (shapes[first], shapes[second])
    x, w = (jnp.asarray(random(shape, "float32", str(shape))) for shape in _measure.held_shapes(p))
    once = _measure.convolve_held(x, w, p)
    assert once.shape == shapes[result]
    convolve = functools.partial(_measure.convolve_held, problem=p)
    for result in _measure.chained(convolve, 3, (x, w))():
        np.testing.assert_allclose(result, once, rtol=1e-5, atol=1e-5)


def test_nothing_is_computed_once_for_several_runs():
    p = problem(CASE, "float32", method="fft")
    x, w = _measure.draw_operands(p)

    def transforms(count):
        convolve = functools.partial(_measure.convolve_held, problem=p)
        repeated = _measure.repeated(convolve, count, jax.default_backend())
        return jax.jit(repeated).lower(x, w, jnp.zeros((), w.dtype)).compile().as_text().count("fft_type=")

    assert transforms(3) == 3 * transforms(1) > 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex64", "int32"])
def test_operands_that_are_drawn(dtype):
    x, w = _measure.draw_operands(problem(CASE, dtype))
    assert (x.shape, w.shape) == (CASE.x_shape, CASE.w_shape)
    assert x.dtype == w.dtype == dtype
    assert np.unique(np.asarray(x)).size > 3


def use_clock(monkeypatch, clock):
    monkeypatch.setattr(_measure, "time", SimpleNamespace(perf_counter=clock))


def test_candidates_take_turns(monkeypatch):
    """The order is reversed in every round; hopeless ones leave at once, laggards soon, and then the race is over."""
    now, calls = 0.0, []

    def trial(name, *times):
        times = iter(times)

        def call():
            nonlocal now
            calls.append(name)
            now += next(times)

        return _measure.Trial(call, 1, [next(times)])

    trials = {
        "hopeless": trial("hopeless", 6.0),
        "fast": trial("fast", 1.0, 1.1, 0.9, 1.0),
        "laggard": trial("laggard", 2.0, 1.9, 2.0, 2.1),
    }
    use_clock(monkeypatch, lambda: now)
    _measure.race(trials)
    assert calls == ["laggard", "fast", "fast", "laggard", "laggard", "fast"]
    assert trials["hopeless"].samples == [6.0]
    assert trials["fast"].samples == pytest.approx([1.0, 1.1, 0.9, 1.0])


@pytest.mark.parametrize(
    ("seconds", "rounds"), [(0.01, _measure.MOST), (2 * _measure.LONGEST_RACE, _measure.FEWEST)], ids=["quick", "slow"]
)
def test_race_ends(monkeypatch, seconds, rounds):
    """Equals do not run for ever: for so many rounds, or so many seconds."""
    now = 0.0

    def call():
        nonlocal now
        now += seconds

    trials = {name: _measure.Trial(call, 1, [seconds]) for name in "ab"}
    use_clock(monkeypatch, lambda: now)
    _measure.race(trials)
    assert [len(trial.samples) for trial in trials.values()] == [1 + rounds] * 2


@pytest.mark.parametrize(("seconds", "warmed"), [(0.001, True), (0.02, False)], ids=["short", "long"])
def test_short_calls_are_warmed_up_before_each_sample(monkeypatch, seconds, warmed):
    """The untimed call takes no part in the samples."""
    now, calls = 0.0, []

    def trial(name):
        def call():
            nonlocal now
            calls.append(name)
            now += seconds

        return _measure.Trial(call, 1, [seconds])

    trials = {name: trial(name) for name in "ab"}
    use_clock(monkeypatch, lambda: now)
    _measure.race(trials)
    assert calls[:4] == (["b", "b", "a", "a"] if warmed else ["b", "a", "a", "b"])
    assert [len(trial.samples) for trial in trials.values()] == [1 + _measure.MOST] * 2


def test_slow_compilation_and_failures_are_skipped(monkeypatch, path):
    """The next best is taken, and the table says why."""

    def prepare(problem, operands):
        name = decide(problem, "cpu").chosen
        if name == "xla":
            return "takes 12 s to compile"
        if name == "shift":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")
        return _measure.Trial(lambda: None, 1, [1.0])

    monkeypatch.setattr(_measure, "prepare", prepare)
    monkeypatch.setattr(_measure, "race", lambda trials: None)
    (found,) = jaxconv.autotune(convolve, *data(), gradients=False, path=path)
    notes = {t.algorithm: t.note for t in found.timings}
    assert notes["xla"] == "takes 12 s to compile"
    assert notes["shift"] == "failed: RESOURCE_EXHAUSTED: out of memory"
    assert found.chosen not in ("xla", "shift")


def test_compilation_is_timed(monkeypatch):
    """By a clock that a slow compiler would move on."""
    ticks = iter([0.0, _measure.SLOWEST_COMPILATION + 1])
    p = problem(CASE, "float32")
    use_clock(monkeypatch, lambda: next(ticks))
    assert _measure.prepare(p, _measure.draw_operands(p)) == "takes 11 s to compile"


def test_nothing_can_be_measured(monkeypatch, path):
    monkeypatch.setattr(_measure, "prepare", lambda *_: "takes 12 s to compile")
    assert len(jaxconv.autotune(convolve, *data(), path=path)) == 0
    assert not path.exists()


def test_hopeless_candidates_are_not_tried(measured, monkeypatch, path):
    """By the model, or by the bound on scratch memory."""
    measured(fft=1e-6)
    monkeypatch.setattr(_measure, "HOPELESS_BY_MODEL", 1.0)
    (found,) = jaxconv.autotune(convolve, *data(), gradients=False, path=path)
    assert [t.measured is None for t in found.timings] == [False] + [True] * (len(found.timings) - 1)
    assert all(t.note.endswith("by the model") for t in found.timings[1:])
    monkeypatch.setattr(_measure, "HOPELESS_BY_MODEL", float("inf"))
    favourite = found.timings[0].algorithm
    monkeypatch.setattr(_measure, "too_much_scratch", lambda p, cost: "" if cost.transform_flops == 0 else "too heavy")
    path.unlink()
    (found,) = jaxconv.autotune(convolve, *data(), gradients=False, path=path)
    notes = {t.algorithm: t.note for t in found.timings}
    assert notes["fft"] == "not measured: too heavy"
    assert notes[favourite] == "" or favourite != found.chosen


def test_heavy_favourite_must_be_much_faster(measured, monkeypatch, path):
    """The model's favourite is tried although it is heavy, and then counts as five times slower than it is."""
    (plan,) = jaxconv.plan(convolve, *data(), platform="cpu")
    favourite = plan.forward.chosen
    rival = next(c.name for c in plan.forward.candidates if c.cost and c.name != favourite and REGISTRY[c.name].local)
    monkeypatch.setattr(_measure, "HEAVY_ADVANTAGE", 1.0001)
    cost = next(c.cost for c in plan.forward.candidates if c.name == favourite)
    monkeypatch.setattr(_measure, "too_much_scratch", lambda p, c: "heavy" if c == cost else "")
    for seconds, chosen in ((0.50001, rival), (0.6, favourite)):
        measured(**{favourite: 0.5, rival: seconds})
        path.unlink(missing_ok=True)
        (found,) = jaxconv.autotune(convolve, *data(), gradients=False, path=path)
        assert found.chosen == chosen


def test_direct_admits_local_ones_only(measured, path):
    """A promise is kept by what is measured, and by what is looked up; the table of another method does not count."""
    measured(fft=1e-6, toeplitz=1e-5, shift=1e-3)
    x, w = random((40,), "float32", "x"), random((5,), "float32", "w")
    auto, direct = (functools.partial(jaxconv.signal.convolve, method=method) for method in ("auto", "direct"))
    tables = [jaxconv.autotune(function, x, w, path=path) for function in (auto, direct)]
    assert {m.chosen for m in tables[0]} == {"fft"}
    assert {REGISTRY[t.algorithm].local for m in tables[1] for t in m.timings} == {True}
    assert not set(tables[0].__iter__()) & set(tables[1])
    with jaxconv.tuned(tables[0]):
        assert jaxconv.plan(direct, x, w, platform="cpu")[0].forward.source == "modelled"
    forged = Tuning(dataclasses.replace(m, chosen="fft") for m in tables[1])
    with jaxconv.tuned(forged):
        assert transforms(direct, x, w) == 0


def test_named_methods_have_nothing_to_choose(measured, path):
    """Only where the named one cannot run a gradient there is a choice: among those that promise as much."""
    problems = measured(fft=1e-6)
    x, w = random((40,), "float32", "x"), random((5,), "float32", "w")
    function = functools.partial(jaxconv.signal.convolve, method=("shift", "auto", "toeplitz"))
    table = jaxconv.autotune(function, x, w, path=path)
    assert {p.spec.forward_method for p, _ in problems} == {m.problem.spec.method for m in table} == {"auto"}
    with jaxconv.tuned(table):
        (plan,) = jaxconv.plan(function, x, w, platform="cpu")
    assert [plan.forward.source, plan.input_gradient.source] == ["asked for", "measured"]


def test_fallback_of_a_named_method(measured, path):
    """`lags` cannot compute the input gradient of what it can compute: no FFT may."""
    measured(fft=1e-6, xla=1e-5, shift=1e-4)
    x, w = random((1, 1, 1, 140), "float32", "x"), random((1, 1, 1, 133), "float32", "w")
    function = functools.partial(conv, method="lags")
    table = jaxconv.autotune(function, x, w, path=path)
    with jaxconv.tuned(table):
        (plan,) = jaxconv.plan(function, x, w, platform="cpu")
    assert plan.forward.source == "asked for"
    assert plan.input_gradient.chosen != "lags"
    assert plan.input_gradient.source == "measured"
    assert not any(REGISTRY[t.algorithm].uses_fft for m in table for t in m.timings)


@pytest.mark.parametrize("name", ["2d-transposed", "3d-plain"])
def test_problems_inside_problems(measured, path, name):
    """`polyphase` and `planes` run inside what was measured to be the fastest, and are measured so."""
    case = BY_NAME[name]
    outer = "planes" if "3d" in name else "polyphase"
    problems = measured(**{outer: 1e-6, "fft": 1e-5})
    x, w = map(jnp.asarray, operands(case, "float32"))
    function = functools.partial(conv, **case.options)
    table = jaxconv.autotune(function, x, w, gradients=False, path=path)
    assert len(table) >= 2
    tried = [p for p, chosen in problems if chosen == outer]
    assert tried
    for p in tried:
        assert {c.inner for c in decide(p, "cpu").candidates if c.name == outer} <= {"fft", "polyphase"}
    with jaxconv.tuned(table):
        (plan,) = jaxconv.plan(function, x, w, platform="cpu")
        assert plan.forward.chosen == outer
        assert transforms(function, x, w) > 0
        check("value", jax.jit(function)(x, w), x, w, case, "correlation", "float32", fft=True)


def test_gradients_and_budget(measured, path):
    problems = measured()
    assert len(jaxconv.autotune(convolve, *data(), budget=0, path=path)) == 0
    assert not problems
    assert len(jaxconv.autotune(convolve, *data(), gradients=False, path=path)) == 1
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in data()]
    before = len(problems)
    assert len(jaxconv.autotune(convolve, *shapes, path=path)) == 3
    assert len({p for p, _ in problems[before:]}) == len(problems) - before
    assert len(jaxconv.autotune(convolve, *data(), budget=0, path=path)) == 3
    integers = [a.astype("int32") for a in data()]
    assert len(jaxconv.autotune(convolve, *integers, path=path)) == 1


def test_budget_is_kept(measured, monkeypatch, path, capsys):
    """The clock moves on by a minute between any two readings: time for the first convolution only."""
    measured()
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(_autotune, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    table = jaxconv.autotune(convolve, *data(), budget=100, path=path, verbose=True)
    assert len(table) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"jaxconv.autotune: 0 of 3 convolutions are remembered in {path}"
    assert lines[1].startswith("1/3 convolution of float32: x ")
    assert lines[2] == "the time is up: 2 convolutions are left to the model"


def test_nothing_to_measure(path):
    """Empty results, and functions without any convolution."""
    assert len(jaxconv.autotune(lambda x: x + 1, jnp.ones(3), path=path)) == 0
    assert len(jaxconv.autotune(conv, jnp.ones((1, 1, 1, 3)), jnp.ones((1, 1, 1, 5)), path=path)) == 0


def test_a_table_in_force_does_not_matter(fft, measured, path):
    """What is measured is the convolution, whatever was measured before."""
    measured(shift=1e-6)
    path.unlink()
    with jaxconv.tuned(fft):
        table = jaxconv.autotune(convolve, *data(), path=path)
    assert {m.chosen for m in table} == {"shift"}
    assert not any(m.problem.spec.tuning for m in table)


def test_on_a_device_of_choice(monkeypatch, path, two_devices):
    """Measured where it was asked for, whatever mesh or default device the caller has set."""
    used = []

    def prepare(problem, operands):
        used.append({device for a in operands for device in a.devices()})
        return _measure.Trial(lambda: None, 1, [1.0])

    monkeypatch.setattr(_measure, "prepare", prepare)
    mesh = Mesh(np.array(two_devices), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    first, second = two_devices
    with jax.set_mesh(mesh):
        jaxconv.autotune(convolve, *data(), path=path, device=second)
    with jax.default_device(second):
        jaxconv.autotune(convolve, *data(), path=path.with_name("other.json"))
    assert all(devices == {second} for devices in used)
    used.clear()
    jaxconv.autotune(convolve, *data(), path=path.with_name("another.json"))
    assert all(devices == {first} for devices in used)


@pytest.mark.parametrize(
    ("call", "error", "pattern"),
    [
        (lambda: jaxconv.autotune((100,), (5,)), TypeError, r"takes a function.*\(100,\)"),
        (lambda: jaxconv.autotune(convolve, *data(), budget=-1), ValueError, r"budget.*-1"),
        (lambda: jaxconv.autotune(convolve, *data(), budget=float("nan")), ValueError, r"budget.*nan"),
        (lambda: jaxconv.autotune(convolve, *data(), budget="1 s"), ValueError, r"budget.*1 s"),
        (lambda: jaxconv.tuned("fft"), TypeError, r"jaxconv\.Tuning.*'fft'"),
        (lambda: jaxconv.tuned(convolve), TypeError, r"jaxconv\.autotune"),
        (lambda: Tuning() | {}, TypeError, r"unsupported"),
    ],
)
def test_bad_input(call, error, pattern):
    with pytest.raises(error, match=pattern):
        call()


def test_not_while_tracing(path):
    with pytest.raises(RuntimeError, match=r"while JAX traces.*ShapeDtypeStruct"):
        jax.jit(lambda x, w: len(jaxconv.autotune(convolve, x, w, path=path)))(*data())


# --- the table itself -------------------------------------------------------------------------------------------------


def entry(case=CASE, chosen="shift", **setting):
    setting = {"platform": "cpu", "device": "abacus", "jax": "1", "jaxlib": "2", "jaxconv": "3"} | setting
    timings = (Timing("shift", None, 1e-3, 2e-3, ""), Timing("fft", None, 3e-3, None, "not measured: too heavy"))
    simple, _ = simplify(problem(case, "float32"))
    return Measurement(Setting(**setting), simple, chosen, timings)


def test_table_is_a_value():
    one, other = entry(), entry(BY_NAME["2d-channels"])
    table = Tuning([one, other])
    assert table == Tuning([other, one])
    assert hash(table) == hash(Tuning([other, one]))
    assert table != Tuning([one])
    assert table != 1
    assert pickle.loads(pickle.dumps(table)) == table
    assert Tuning([one]) | Tuning([other]) == table
    assert Tuning([one]) | Tuning([entry(chosen="fft")]) == Tuning([entry(chosen="fft")])
    assert list(Tuning([one, entry(platform="cuda")])) == [one, entry(platform="cuda")]
    assert table.find("cpu", one.problem) == one
    assert table.find("cuda", one.problem) is None
    with pytest.raises(AttributeError):
        table.more = 1


def test_printed_table():
    text = repr(Tuning([entry(), entry(BY_NAME["2d-channels"])]))
    assert text.splitlines()[0] == "2 convolutions measured on cpu: abacus; jax 1, jaxlib 2, jaxconv 3"
    assert "     algorithm  modelled  measured\n" in text
    assert text.count("   * shift          1 ms      2 ms\n") == 2
    assert text.count("     fft            3 ms         -   not measured: too heavy") == 2
    assert repr(Tuning()) == "nothing was measured"


def test_plan_prints_what_was_measured(fft):
    with jaxconv.tuned(fft):
        (plan,) = jaxconv.plan(convolve, *data(), platform="cpu")
    assert {plan.forward.source, plan.input_gradient.source, plan.kernel_gradient.source} == {"measured"}
    text = repr(plan)
    assert "  forward on cpu: fft (measured)\n" in text
    assert "time  measured  error" in text
    measured = {c.name: c.measured for c in plan.forward.candidates if c.measured is not None}
    assert measured["fft"] == 1e-6
    assert "1000000.0 times slower" in text
    (plan,) = jaxconv.plan(convolve, *data(), platform="cpu")
    assert "measured" not in repr(plan)


def test_winners_that_are_none(fft):
    """An algorithm that there is no more, or that cannot run the problem: the model decides."""
    for name in ("abacus", "planes"):
        forged = Tuning(dataclasses.replace(m, chosen=name) for m in fft)
        with jaxconv.tuned(forged):
            (plan,) = jaxconv.plan(convolve, *data(), platform="cpu")
        assert plan.forward.source == "modelled"
