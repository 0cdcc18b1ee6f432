"""The experiments' machinery: claims, training, kernels, results, report, command line."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

from experiments import (
    cli,
    data,
    figures,
    kernels,
    report,
    runner,
    training,
)
from experiments.core import (
    Claim,
    Context,
    Figure,
    NonFiniteError,
    Outcome,
    Panel,
    Table,
    require_finite,
    usable_devices,
)
from jaxconv import signal

QUIET = Context(quick=True, show_progress=False)


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "comparison", "threshold", "holds"),
    [
        (1, "<", 2, True),
        (2, "<", 2, False),
        (2, "<=", 2, True),
        (3, ">", 2, True),
        (2, ">", 2, False),
        (2, ">=", 2, True),
        (0, "==", 0, True),
        (1, "==", 0, False),
    ],
)
def test_claim_holds(measured, comparison, threshold, holds):
    assert Claim("c", "s", measured, comparison, threshold).holds is holds


def test_claim_measures_plain_floats():
    claim = Claim("c", "s", jnp.float32(0.5), "<", np.int64(1))  # type: ignore[arg-type]
    assert type(claim.measured) is type(claim.threshold) is float


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_claim_refuses_what_is_not_finite(value):
    with pytest.raises(NonFiniteError, match="claim 'c': the measured value is"):
        Claim("c", "s", value, "<", 1)


def test_claim_refuses_unknown_comparisons():
    with pytest.raises(ValueError, match="unknown comparison '<<'; use one of <, <=, >, >=, =="):
        Claim("c", "s", 1, "<<", 2)


def test_worst_takes_the_least_favourable():
    values = np.array([[1.0, 5.0], [3.0, 2.0]])
    axes = (["a", "b"], ["x", "y"])
    below, above = Claim.worst("c", "s", values, axes, "<", 4), Claim.worst("c", "s", values, axes, ">", 0.5)
    assert (below.measured, below.detail, below.holds) == (5, "Largest: a, y.", False)
    assert (above.measured, above.detail, above.holds) == (1, "Smallest: a, x.", True)
    with pytest.raises(NonFiniteError, match="1 of 2 values are not finite"):
        Claim.worst("c", "s", np.array([1.0, np.nan]), (["a", "b"],), "<", 4)


def test_claims_have_names_of_their_own():
    claim = Claim("twice", "s", 1, "<", 2)
    with pytest.raises(ValueError, match="not: twice"):
        Outcome("a", "m", (claim, claim), ())


def test_random_streams():
    assert Context(seed=1).rng(0).random() == Context(seed=1).rng(0).random()
    draws = {Context(seed=seed).rng(*stream).random() for seed in (0, 1) for stream in ((), (0,), (1,), (0, 1))}
    assert len(draws) == 8


# --- training --------------------------------------------------------------------------------------------------------


def squares(params, data, batch):
    return (params - data - batch) ** 2


def test_runs_are_independent_and_losses_come_before_the_step():
    trainer = training.Trainer(squares, optax.sgd(0.25), what="squares", record=lambda params: params)
    target = jnp.array([0.0, 4.0])
    fit = trainer.fit(jnp.array([2.0, 2.0]), target, np.zeros((3, 2)), steps=3)
    np.testing.assert_allclose(fit.losses, [[4, 4], [1, 1], [0.25, 0.25]])
    np.testing.assert_allclose(fit.records, [[1, 3], [0.5, 3.5], [0.25, 3.75]])
    np.testing.assert_allclose(fit.params, [0.25, 3.75])


@pytest.mark.parametrize("chunks", [2, 4, 12])
def test_chunks_change_nothing(chunks):
    trainer = training.Trainer(squares, optax.adam(0.1), what="squares", record=lambda params: {"at": params})
    start, target, batches = jnp.ones(3), jnp.arange(3.0), np.linspace(0, 1, 36).reshape(12, 3)
    whole = trainer.fit(start, target, batches, steps=12)
    ticks = []
    pieces = trainer.fit(start, target, batches, steps=12, chunks=chunks, tick=lambda: ticks.append(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), whole, pieces)
    assert len(ticks) == chunks


def test_losses_side_by_side():
    """Losses that share no parameters are minimised each for itself."""

    def loss(params, data, batch):
        del batch
        return (params - data) ** 2

    fit = training.Trainer(loss, optax.sgd(0.5), what="pair").fit(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]]), steps=1)
    np.testing.assert_allclose(fit.losses, [[[1, 9]]])
    np.testing.assert_allclose(fit.params, [[1, 3]])


def test_training_stops_at_nan():
    def loss(params, data, batch):
        del data
        return jnp.sqrt(batch) * params

    trainer = training.Trainer(loss, optax.sgd(0.1), what="roots")
    batches = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    ticks = []
    with pytest.raises(NonFiniteError, match=r"roots: the loss became nan at step 2 of run \(1,\).*learning rate"):
        trainer.fit(jnp.ones(2), None, batches, steps=4, chunks=2, tick=lambda: ticks.append(1))
    assert len(ticks) == 1


def test_steps_are_a_multiple_of_chunks():
    with pytest.raises(ValueError, match="5 steps cannot be cut in 2 equal chunks; choose a divisor of 5"):
        training.Trainer(squares, optax.sgd(1.0), what="").fit(jnp.ones(1), jnp.ones(1), steps=5, chunks=2)


def on_devices(count, monkeypatch):
    devices = jax.devices()[:count]
    monkeypatch.setattr(training, "usable_devices", lambda: devices)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("runs", [1, 4, 5])
def test_spread_is_vmap_on_any_number_of_devices(runs, monkeypatch):
    """Gradients of a kernel that is each run's own, and of an image that all share, out of a scan; axes 0, 1 and 2."""
    image = jnp.asarray(data.photograph("coins", 16))

    def loss(kernel, image, scale):
        return (scale * jnp.tanh(signal.convolve(image, kernel, mode="same"))).sum()

    def one(number, image, scales):
        kernel = jax.random.normal(jax.random.key(number), (3, 3))

        def body(kernel, scale):
            gradients = jax.grad(loss, (0, 1))(kernel, image, scale)
            return kernel - 0.01 * gradients[0], gradients[1]

        kernel, gradients = jax.lax.scan(body, kernel, scales)
        return {"kernel": kernel, "zero": jnp.zeros(2)}, gradients.sum(-1)

    arguments = (np.arange(runs), image, np.linspace(1, 2, 3 * runs).reshape(3, runs))
    expected = jax.jit(jax.vmap(one, (0, None, 1), (0, 2)))(*arguments)
    on_devices(2, monkeypatch)
    found = training.spread(one, (0, None, 1), (0, 2))(*arguments)
    assert found[1].shape == (3, 16, runs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), found, expected)
    if runs == 4:  # nothing was dropped, so the results lie where they were computed
        assert len(found[1].devices()) == 2


@pytest.mark.usefixtures("two_devices")
def test_trainings_are_spread_over_devices(monkeypatch):
    """Both padded: three runs, on two devices; and the run that fails has its own number."""
    target, batches = jnp.array([0.0, 4.0, 1.0]), np.linspace(0, 1, 18).reshape(6, 3)
    fits = []
    for count in (1, 2):
        on_devices(count, monkeypatch)
        trainer = training.Trainer(squares, optax.adam(0.1), what="squares", record=lambda params: params)
        fits.append(trainer.fit(jnp.ones(3), target, batches, steps=6, chunks=2))
        with pytest.raises(NonFiniteError, match=r"squares: the loss became inf at step 0 of run \(2,\)"):
            trainer.fit(jnp.array([0.0, 1.0, np.inf]), target, batches, steps=6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *fits)


def test_spread_refuses_unequal_numbers_of_runs():
    with pytest.raises(ValueError, match=r"same number of runs, one or more; these have \[3, 2\]"):
        training.spread(jnp.add)(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=r"these have \[0\]"):
        training.spread(jnp.sin)(np.ones(0))


def test_devices_that_may_be_used(two_devices):
    assert usable_devices() == jax.devices()
    with jax.default_device(two_devices[1]):
        assert usable_devices() == two_devices[1:]
    with jax.default_device("cpu"):
        assert usable_devices() == jax.devices("cpu")


def test_require_finite_says_what_and_where():
    require_finite("a run", {"a": np.ones(2), "b": jnp.arange(3), "c": jnp.ones(2, jnp.bfloat16)})
    broken = {"a": np.ones(2), "b": [jnp.array([[0.0, 1.0], [np.nan, np.inf]])]}
    with pytest.raises(
        NonFiniteError, match=r"a run\['b'\]\[0\]: 2 of 4 values .* the first of them, nan, at \(1, 0\)"
    ):
        require_finite("a run", broken)


def test_training_stops_at_parameters_and_records_that_are_not_finite():
    """The last step breaks them, after its loss was looked at."""
    trainer = training.Trainer(squares, optax.sgd(1e200), what="leap")
    with pytest.raises(NonFiniteError, match="leap: parameters after step 0: 1 of 1 values are not finite"):
        trainer.fit(jnp.array([1e150]), jnp.zeros(1), np.zeros((1, 1)), steps=1)
    trainer = training.Trainer(squares, optax.sgd(0.0), what="logs", record=jnp.log)
    with pytest.raises(NonFiniteError, match="logs: records of steps 0 to 0: 1 of 1"):
        trainer.fit(jnp.array([-1.0]), jnp.zeros(1), np.zeros((1, 1)), steps=1)


# --- data and kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", data.PHOTOGRAPHS)
def test_photographs_are_at_hand(name):
    image = data.photograph(name, 64)
    assert image.shape == (64, 64)
    assert image.dtype == np.float64
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.01


def test_unknown_photograph():
    with pytest.raises(ValueError, match="unknown photograph 'lena'; known are astronaut"):
        data.photograph("lena", 64)
    with pytest.raises(ValueError, match="no square of 4000 pixels in photograph 'coins', which has 303 x 384"):
        data.photograph("coins", 4000)


def test_whitening():
    image = data.photograph("coins", 96)
    image = image - image.mean()
    white = data.filtered(image, data.whitening_filter(image, 9))
    before, after = (data.curvatures(each, 5) for each in (image, white))
    assert after[-1] / after[0] < 3 < 100 < before[-1] / before[0]


def test_digits():
    digits = data.digits(np.random.default_rng(0), test=97)
    assert digits.images.shape == (1700, 8, 8, 1)
    assert digits.test_images.shape == (97, 8, 8, 1)
    assert set(digits.labels) == set(range(10))
    assert digits.images.max() == 1
    again = data.digits(np.random.default_rng(0), test=97)
    np.testing.assert_array_equal(digits.test_labels, again.test_labels)


def test_kernels_are_what_they_are_called():
    groups = kernels.collection(np.random.default_rng(0), random=3)
    assert len(groups.asymmetric) == 8 + 3
    for group in groups:
        for kernel in group.values():
            assert kernel.shape == (9, 9)
            assert np.linalg.norm(kernel) == pytest.approx(1)
    assert min(map(kernels.asymmetry, groups.asymmetric.values())) >= 0.5
    assert max(map(kernels.asymmetry, groups.symmetric.values())) < 1e-12
    assert min(map(kernels.asymmetry, groups.antisymmetric.values())) == pytest.approx(2)


def test_kernels_are_checked():
    groups = kernels.collection(np.random.default_rng(0), random=0)
    gaussian, letter = groups.symmetric["Gaussian"], groups.asymmetric["letter F"]
    with pytest.raises(ValueError, match=r"'dot' is nearly its own flip: .* 0\.000"):
        kernels.check(groups._replace(asymmetric={"dot": gaussian}))
    with pytest.raises(ValueError, match=r"'F' should equal \+1 times its flip"):
        kernels.check(groups._replace(symmetric={"F": letter}))
    with pytest.raises(ValueError, match="'dot' should equal -1 times its flip"):
        kernels.check(groups._replace(antisymmetric={"dot": gaussian}))
    with pytest.raises(ValueError, match="side is 7"):
        kernels.collection(np.random.default_rng(0), random=0, side=7)


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.004, "1.00"), (0.0837, "0.0837"), (22301.4, "22,301"), (3.2e-7, "3.2×10⁻⁷"), (1e-10, "10⁻¹⁰")],
)
def test_scientific(value, text):
    assert figures.scientific(value) == text


def test_charts_follow_the_page():
    with figures.chart("one, two", "A line.") as (axes, drawn):
        axes.plot([0, 1], [1e-3, 1], color=figures.COLORS["convolution"], label="curve")
        axes.set_yscale("log")
        figures.log_axis(axes.yaxis)
        axes.legend()
    svg = drawn.panel.svg
    assert svg.startswith("<svg")
    assert "var(--convolution, #1769b5)" in svg
    assert not re.search(r"#1769b5(?!\))", svg)
    assert all(name.startswith("one-two-") for name in re.findall(r'\bid="([^"]+)"', svg))
    assert "10⁻³" in svg


def test_signed_pictures():
    pixels = imread(io.BytesIO(figures.signed_png(np.array([[1.0, -1.0], [0.0, 5.0]]), 1)), format="png")
    np.testing.assert_array_equal(pixels[..., 3], [[1, 1], [0, 1]])
    assert not np.array_equal(pixels[0, 0], pixels[0, 1])


# --- results, report, command line -----------------------------------------------------------------------------------


def outcome(*, holds: bool = True) -> Outcome:
    picture = figures.Picture(figures.signed_png(np.eye(3), 1), "eye", "note")
    panel = figures.strip("A panel, π/4", "An <identity> matrix", [picture], title="title & more")
    claims = (
        Claim("first", "One is less than two.", 1 if holds else 3, "<", 2, "detail"),
        Claim("second", "A <b>control</b>.", 1, ">", 0.5, control=True),
    )
    table = Table("table", "its caption", ("a", "b"), (("1", "2"),))
    figure = Figure("figure", "its title", "its caption", (panel, Panel("second", panel.svg, "again")))
    return Outcome("The answer.", "First.\n\nSecond.", claims, (figure,), (table,), (("42", "things"),), panel)


@pytest.fixture
def experiments(monkeypatch):
    """Replace the list of experiments by two, and return what they do and how often they were run."""
    state = {"good": outcome, "other": outcome, "runs": []}

    def run(self, context):
        state["runs"].append(self.name)
        return state[self.name]()

    monkeypatch.setattr(runner.Experiment, "run", run)
    listed = [runner.Experiment("good", "Is it good?", headline=True), runner.Experiment("other", "And the other?")]
    monkeypatch.setattr(runner, "EXPERIMENTS", {experiment.name: experiment for experiment in listed})
    return state


def results_of(out):
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def test_headline_set_and_results(experiments, tmp_path, capsys):
    assert cli.main(["run", "--out", str(tmp_path), "--seed", "3"]) == 0
    assert experiments["runs"] == ["good"]
    results = results_of(tmp_path)
    assert results["holds"] is True
    assert results["stopped"] is None
    environment = results["environment"]
    assert (environment["seed"], environment["quick"], environment["x64"]) == (3, False, False)
    assert environment["versions"]["jax"] == jax.__version__
    assert {"device", "platform", "python", "source", "started"} <= environment.keys()
    (entry,) = results["experiments"]
    assert entry["claims"][0] == {
        "id": "first",
        "statement": "One is less than two.",
        "measured": 1,
        "comparison": "<",
        "threshold": 2,
        "detail": "detail",
        "control": False,
        "holds": True,
        "question": None,
    }
    for panel in [entry["emblem"], *entry["figures"][0]["panels"]]:
        assert (tmp_path / panel["file"]).read_text(encoding="utf-8").startswith("<svg")
    printed = capsys.readouterr().out
    assert "holds  first: 1.00 < 2" in printed
    assert "index.html" in printed


def test_a_failing_claim_is_told_everywhere(experiments, tmp_path, capsys):
    experiments["good"] = lambda: outcome(holds=False)
    assert cli.main(["run", "good", "other", "--out", str(tmp_path)]) == 1
    assert results_of(tmp_path)["holds"] is False
    assert "FAILS  first: not 3.00 < 2" in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 of 4 claims fail" in page
    assert "Not answered, for these claims fail: first." in page


def test_nan_stops_the_run_and_keeps_what_was_finished(experiments, tmp_path, capsys):
    def fail():
        raise NonFiniteError("the loss became nan at step 7")

    experiments["other"] = fail
    assert cli.main(["run", "--all", "--out", str(tmp_path)]) == 2
    assert "stopped: the loss became nan at step 7" in capsys.readouterr().err
    results = results_of(tmp_path)
    assert results["holds"] is False
    assert results["stopped"] == {"experiment": "other", "message": "the loss became nan at step 7"}
    assert [entry["name"] for entry in results["experiments"]] == ["good"]
    assert "the loss became nan at step 7" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_resume(experiments, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    out = ["--out", str(tmp_path)]
    experiments["other"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        cli.main(["run", "--all", *out])
    assert "not yet run: other" in (tmp_path / "index.html").read_text(encoding="utf-8")
    experiments["other"] = outcome
    experiments["runs"].clear()
    assert cli.main(["run", "--all", "--resume", *out]) == 0
    assert experiments["runs"] == ["other"]
    assert [entry["name"] for entry in results_of(tmp_path)["experiments"]] == ["good", "other"]

    experiments["runs"].clear()
    assert cli.main(["run", "--all", *out]) == 0  # without --resume, all anew
    assert cli.main(["run", "--all", "--resume", "--seed", "1", *out]) == 0  # other settings, all anew
    assert experiments["runs"] == ["good", "other"] * 2


def test_resume_looks_at_the_source(experiments, tmp_path, monkeypatch):
    assert cli.main(["run", "--out", str(tmp_path)]) == 0
    monkeypatch.setattr(runner, "source_digest", lambda: "another")
    assert cli.main(["run", "--resume", "--out", str(tmp_path)]) == 0
    assert experiments["runs"] == ["good", "good"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "unknown experiment 'nothing'; known are good, other"),
        (["run", "good", "--all"], "not both"),
        (["run", "--seed", "-1"], "a seed is an integer from 0 upwards, not '-1'"),
        (["run", "--device", "abacus"], "no device of platform 'abacus'.*there are cpu"),
        (["run", "--device", "cpu:99"], "no device 'cpu:99'; cpu has the numbers 0 to"),
        ([], "COMMAND"),
    ],
)
@pytest.mark.usefixtures("experiments")
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err, re.DOTALL)


@pytest.mark.usefixtures("experiments")
def test_list(capsys):
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == "* good   Is it good?\n  other  And the other?\n"


def test_settings_reach_the_experiment(experiments, tmp_path, monkeypatch):
    seen = []

    def run(self, context):
        seen.append((context.seed, context.quick, context.dtype, jnp.ones(1).dtype, jnp.ones(1).device))
        return outcome()

    monkeypatch.setattr(runner.Experiment, "run", run)
    options = ["--quick", "--x64", "--seed", "5", "--device", "cpu:1", "--out", str(tmp_path)]
    assert cli.main(["run", *options]) == 0
    assert cli.main(["run", "--out", str(tmp_path)]) == 0
    assert seen[0] == (5, True, np.float64, np.float64, jax.devices("cpu")[1])
    assert seen[1] == (0, False, np.float32, np.float32, jax.devices("cpu")[0])


class Reader(HTMLParser):
    """Collects what a page refers to, and checks that its elements are closed in order."""

    VOID = frozenset({"meta", "image", "rect", "use", "path", "link", "br", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.urls = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                (self.references if (value or "").startswith("#") else self.urls).append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.mark.usefixtures("experiments")
def test_report_is_one_sound_page(tmp_path):
    cli.main(["run", "--all", "--quick", "--out", str(tmp_path)])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    reader = read(page)
    assert not reader.open
    assert {reference[1:] for reference in reader.references} <= set(reader.ids)
    assert all(url.startswith("data:image/png;base64,") for url in reader.urls)  # nothing from elsewhere
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert "All 4 claims hold" in page
    assert "A quick run" in page
    assert "A &lt;b&gt;control&lt;/b&gt;." in page
    assert 'aria-label="An &lt;identity&gt; matrix"' in page


# --- for the experiments, tiny ---------------------------------------------------------------------------------------


def check_outcome(result: Outcome, name: str, tmp_path, unmet: set[str]) -> None:
    """Compare the claims that do not hold with those that a tiny run cannot meet, and set the outcome as a page."""
    assert {claim.name for claim in result.claims if not claim.holds} <= unmet
    assert {claim.control for claim in result.claims} == {False, True}
    entry = runner._record(runner.EXPERIMENTS[name], result, 0.0, tmp_path)
    environment = runner.describe(QUIET)
    results = {"environment": environment, "planned": [name], "stopped": None, "experiments": [entry]}
    reader = read(report.page(results, tmp_path))
    assert not reader.open
    assert {reference[1:] for reference in reader.references} <= set(reader.ids)
    assert all(panel.alt for figure in result.figures for panel in figure.panels)
