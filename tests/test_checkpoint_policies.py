"""What `jaxconv.checkpoint_policies` saves and what it recomputes, counted in jaxprs."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxconv
from jaxconv.checkpoint_policies import save_convolutions

from .cases import random

X, W = random((2, 3, 8), "float64", "x"), random((3, 3, 3), "float64", "w")
JOINED = jax.checkpoint_policies.save_from_both_policies(
    save_convolutions, jax.checkpoint_policies.dots_with_no_batch_dims_saveable
)


def block(w, x, conv):
    """Two convolutions with a function after each, so that the first gradient needs both results."""
    for _ in range(2):
        x = jnp.sin(jnp.tanh(conv(x, w, (1,), "SAME")))
    return x


def count(policy, name, conv=jaxconv.lax.conv):
    """How many equations of a kind the gradient of a checkpointed block has."""
    saving = jax.checkpoint(block, policy=policy, static_argnums=2)
    text = str(jax.make_jaxpr(jax.grad(lambda w: saving(w, X, conv).sum()))(W))
    return len(re.findall(rf" {name}\b", text))


def test_convolutions_are_computed_once():
    """Two convolutions, and three gradients: the first input has none."""
    assert count(save_convolutions, "jaxconv") == count(jax.checkpoint_policies.everything_saveable, "jaxconv") == 5
    assert count(JOINED, "jaxconv") == 5


def test_without_the_policy_they_are_computed_again():
    assert count(None, "jaxconv") == 7
    assert count(jax.checkpoint_policies.dots_saveable, "jaxconv") == 7


def test_everything_else_is_recomputed():
    forgotten, saved = (count(policy, "tanh") for policy in (save_convolutions, None))
    assert forgotten == saved == 4
    assert count(jax.checkpoint_policies.everything_saveable, "tanh") == 2


def test_the_convolutions_of_jax_are_saved_too():
    assert count(save_convolutions, "conv_general_dilated", lax.conv) == 5
    assert count(None, "conv_general_dilated", lax.conv) == 7


def test_gradients_do_not_change():
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def compute(w, x):
        plain = jax.grad(lambda w: block(w, x, jaxconv.lax.conv).sum())(w)
        saving = jax.checkpoint(block, policy=save_convolutions, static_argnums=2)
        return plain, jax.grad(lambda w: saving(w, x, jaxconv.lax.conv).sum())(w)

    plain, saved = compute(W, X)
    assert np.any(plain != 0)
    np.testing.assert_allclose(saved, plain, rtol=1e-12, atol=1e-12)


def test_inside_a_scan_of_vmapped_layers():
    """The policy sees the primitive through `vmap`, and decides in the body of a `scan`."""

    def layer(x, w):
        return jnp.tanh(jax.vmap(lambda a: jaxconv.lax.conv(a, w, (1,), "SAME"))(x)), None

    def loss(w, policy):
        return lax.scan(jax.checkpoint(layer, policy=policy), jnp.stack([X, X]), w)[0].sum()

    weights = jnp.stack([W, -W])
    counts = [
        len(re.findall(r" jaxconv\b", str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(weights, policy))))
        for policy in (save_convolutions, None)
    ]
    assert counts == [3, 4]
