"""Five optimisers, from plain gradient descent to Adafactor and Muon, set up for kernels of a few hundred numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, muon

OPTIMIZERS = ("SGD", "momentum", "Adam", "Adafactor", "Muon")
FACTORED = 3  # Adafactor factors the two longest axes of whatever has two at least this long; optax's default is 128


def choice(
    rates: Mapping[str, float], steps: int, eps: float, names: Sequence[str] = OPTIMIZERS
) -> optax.GradientTransformation:
    """Return what trains a dictionary of parameters, each entry by the optimiser whose name it has.

    Parameters
    ----------
    rates
        The first learning rate of each; a cosine takes it to zero.
    steps
        Number of steps of the cosine.
    eps
        What keeps them from dividing by zero, in units of the gradient.
    names
        Those that are wanted.
    """
    rate = {name: optax.cosine_decay_schedule(rates[name], steps) for name in OPTIMIZERS}
    known: dict[Hashable, optax.GradientTransformation] = {
        "SGD": optax.sgd(rate["SGD"]),
        "momentum": optax.sgd(rate["momentum"], momentum=0.9),
        "Adam": optax.adam(rate["Adam"], eps=eps),
        "Adafactor": optax.adafactor(rate["Adafactor"], min_dim_size_to_factor=FACTORED, eps=eps**2),
        "Muon": muon(rate["Muon"], eps=eps, muon_weight_dimension_numbers=_matrices),
    }
    return optax.multi_transform({name: known[name] for name in names}, {name: name for name in names})


def numbers_kept(shape: Sequence[int]) -> float:
    """Return how many numbers Adafactor keeps as second moments of a kernel, over the number of its entries."""
    params = {"Adafactor": jnp.zeros(shape)}
    state = choice(dict.fromkeys(OPTIMIZERS, 1.0), 1, 1e-8, ("Adafactor",)).init(params)
    moments = [optax.tree.get(state, name) for name in ("v_row", "v_col", "v")]
    return sum(leaf.size for leaf in jax.tree.leaves(moments)) / math.prod(shape)


def evenness_of_step(shape: Sequence[int], evenness: float, rng: np.random.Generator) -> float:
    """Return the smallest over the largest singular value of Muon's first step, for a gradient with `evenness` there.

    The kernel [*space, inputs, outputs] is taken as a matrix with a row for each tap of each input. 1 means orthogonal.
    Muon's iteration leaves singular values between about 0.5 and 1.5 (K. Jordan, "Muon: an optimizer for hidden layers
    in neural networks", 2024).
    """
    left, values, right = np.linalg.svd(rng.standard_normal((math.prod(shape[:-1]), shape[-1])), full_matrices=False)
    gradient = (left * np.geomspace(1, evenness, len(values))) @ right
    params: Any = {"Muon": jnp.asarray(gradient.reshape(shape))}
    optimizer = choice(dict.fromkeys(OPTIMIZERS, 1.0), 1, 1e-8, ("Muon",))
    step: Any = optimizer.update(params, optimizer.init(params), params)[0]
    values = np.linalg.svd(np.reshape(np.asarray(step["Muon"]), (-1, shape[-1])), compute_uv=False)
    return float(values[-1] / values[0])


def _matrices(params: Any) -> Any:
    """Treat a kernel as the matrix that takes a patch to the outputs; leave what has one axis to Adam."""

    def numbers(leaf: Any) -> MuonDimensionNumbers | None:
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1) if leaf.ndim > 1 else None

    return jax.tree.map(numbers, params)
