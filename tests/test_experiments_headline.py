"""The experiments `identification` and `twins`, tiny, and what they are made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from experiments import (
    data,
    identification,
    identification_layers,
    kernels,
    optimizers,
    school,
    twins,
    twins_figures,
    twins_layers,
)
from tests.test_experiments import QUIET, check_outcome


@pytest.mark.x32
def test_identification(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PHOTOGRAPHS", {name: data.PHOTOGRAPHS[name] for name in ("coins", "gravel")})
    for name, value in {"SIDE": 64, "WHITENING_SIDE": 9, "RAW_STEPS": 8, "STEPS": 28}.items():
        monkeypatch.setattr(identification, name, value)
    monkeypatch.setattr(identification_layers, "chosen", lambda _: identification_layers.LAYERS[:1])
    check_outcome(identification.run(QUIET), "identification", tmp_path, unmet={"without-whitening"})


def test_whitening_keeps_the_kernel():
    """The whitened target is the whitened photograph convolved with the kernel: the solution stays."""
    groups = kernels.collection(np.random.default_rng(0), random=0)
    problems = identification.pose(
        [identification.centred("coins")], np.stack([groups.asymmetric["letter F"]]), whiten=True
    )
    expected = scipy.signal.convolve(problems.inputs[0], groups.asymmetric["letter F"], mode="valid")
    np.testing.assert_allclose(problems.targets[0, 0], expected, atol=1e-12)
    assert data.curvatures(problems.inputs[0], 9)[-1] == pytest.approx(1)


def test_responses_of_layers_are_those_of_loops():
    layer = identification_layers.Layer("test", lambda _: np.zeros(0), (3, 2, 2, 3), stride=2, dilation=3)
    rng = np.random.default_rng(0)
    signal, kernel = rng.standard_normal((13, 9, 2)), rng.standard_normal(layer.kernel)
    expected = np.zeros((4, 3, 3))
    for index in np.ndindex(expected.shape):
        *place, output = index
        for row, column, channel in np.ndindex(3, 2, 2):
            at = (2 * place[0] + 3 * (2 - row), 2 * place[1] + 3 * (1 - column), channel)
            expected[index] += signal[at] * kernel[row, column, channel, output]
    np.testing.assert_allclose(identification_layers.response(layer, signal, kernel), expected, atol=1e-12)


def test_lessons_of_layers():
    """Input whitened and scaled for a rate of 1, kernels of norm 1, the last one its own flip; all from the seed."""
    layer = identification_layers.LAYERS[0]
    lesson = identification_layers.pose(layer, np.random.default_rng(0), 2)
    windows = np.lib.stride_tricks.sliding_window_view(lesson.input[0], 7, 0).reshape(-1, 28)
    curvatures = np.linalg.eigvalsh(windows.T @ windows / len(windows))
    assert curvatures[-1] == pytest.approx(1)
    assert curvatures[0] > 0.1
    np.testing.assert_allclose((lesson.kernels**2).sum((1, 2, 3)), 1)
    gaps = np.abs(lesson.kernels - lesson.kernels[:, ::-1]).max((1, 2, 3))
    assert gaps[-1] < 1e-12 < 0.1 < gaps[:-1].min()
    again = identification_layers.pose(layer, np.random.default_rng(0), 2)
    np.testing.assert_array_equal(again.targets, lesson.targets)


@pytest.fixture
def tiny_school(monkeypatch):
    for module in (school, twins):
        monkeypatch.setattr(module, "WIDTHS", (4,))
    monkeypatch.setattr(school, "BATCH", 8)


@pytest.mark.x32
@pytest.mark.usefixtures("tiny_school")
def test_twins(tmp_path, monkeypatch):
    for module in (twins_layers, twins_figures):
        monkeypatch.setattr(module, "OPTIMIZERS", ("Adafactor",))
    whole, tiny = twins.Plan, {"optimizers": ("Muon",), "steps": 8, "shape_steps": 4, "reruns": 1, "kinked": True}
    monkeypatch.setattr(twins, "Plan", lambda **plan: whole(**plan | tiny))
    result = twins.run(QUIET)
    check_outcome(result, "twins", tmp_path, unmet={"accuracy", "filters-move", "shapes-filters-move"})


@pytest.mark.usefixtures("tiny_school")
def test_school_keeps_the_order_of_its_optimisers():
    """Adam's first step is as long as its rate in every entry; a dictionary of JAX would put Adam first."""
    digits = data.digits(np.random.default_rng(0), test=20)
    lessons = school.School(digits, [1], 4, np.float64, lambda: None, ("SGD", "Adam"))
    start = lessons.start()
    first = lessons.train(school.REFERENCE, start).filters[0][0, 0]
    steps = np.abs(first - np.asarray(start["convs"][0]["kernel"])[0]).reshape(2, -1)
    deviations = np.median(np.abs(steps / school.RATES["Adam"] - 1), axis=1)
    assert deviations[1] < 0.05 < 0.3 < deviations[0]


def test_shapes_are_those_that_are_promised():
    for shape, ndim in zip(twins_layers.SHAPES, (1, 2, 3), strict=True):
        examples = shape.examples(np.random.default_rng(0))
        assert examples.images.shape[1:] == (shape.side,) * ndim + (1,)
        assert set(examples.labels) == set(examples.test_labels) == set(range(shape.classes))
        network = twins_layers.StackNetwork(shape, "correlation", "xla").build()
        assert [conv.kernel.ndim for conv in network.convs] == [ndim + 2] * 2
        assert [conv.strides for conv in network.convs] == [2, 1]
        assert [conv.kernel_dilation for conv in network.convs] == [1, 2]
    assert max(conv.kernel.shape[-2] for conv in network.convs) == 8


@pytest.mark.parametrize("shape", [(3, 3, 1, 16), (3, 3, 16, 32), (7, 4, 8), (3, 3, 3, 8, 8)])
def test_adafactor_factors_and_muon_orthogonalises(shape, monkeypatch):
    assert optimizers.numbers_kept(shape) < 1
    rng = np.random.default_rng(0)
    assert optimizers.evenness_of_step(shape, 0.05, rng) >= 1 / 3
    # With optax's own settings, neither does.
    monkeypatch.setattr(optimizers, "FACTORED", 128)
    monkeypatch.setattr(optimizers, "_matrices", lambda params: jax.tree.map(lambda _: None, params))
    assert optimizers.numbers_kept(shape) >= 1
    assert optimizers.evenness_of_step(shape, 0.05, rng) < 1 / 3


@pytest.mark.x32
def test_disturbed_by_one_unit_in_the_last_place():
    params = {"a": jnp.array([1.0, -3.0, 0.05] * 20, jnp.float32)}
    moved = np.asarray(school.disturb(params, np.random.default_rng(0))["a"])
    unit = np.spacing(np.abs(np.asarray(params["a"])))
    steps = (moved - np.asarray(params["a"])) / unit
    assert set(np.sign(steps)) == {-1, 1}
    assert np.abs(steps).max() <= 1


def test_flipping_a_network_flips_its_filters_only():
    kernel, bias = np.arange(24.0).reshape(2, 3, 2, 1, 2), np.arange(2.0)
    params = {"convs": {0: {"kernel": kernel, "bias": bias}}, "head": {"kernel": np.eye(3)}}
    flipped = school.flip_network(params)
    np.testing.assert_array_equal(flipped["convs"][0]["kernel"], np.flip(kernel, (1, 2)))
    np.testing.assert_array_equal(flipped["convs"][0]["bias"], bias)
    np.testing.assert_array_equal(flipped["head"]["kernel"], np.eye(3))
