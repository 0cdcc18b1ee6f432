"""Policies for `jax.checkpoint` that know jaxconv's primitive, which those of `jax.checkpoint_policies` do not."""

from typing import Any

from jaxconv._primitive import conv_p

__all__ = ["save_convolutions"]


def save_convolutions(prim: Any, *_: Any, **params: Any) -> bool:
    """Save the results of convolutions for the backward pass, and recompute everything else.

    It is to `jax.checkpoint` what `jax.checkpoint_policies.dots_saveable` is for matrix products. That policy does not
    know the primitive of jaxconv, so that under it each convolution is computed a second time. Activations,
    normalisations and boundary extensions are cheap to recompute; convolutions are not. Convolutions by `jax.lax` are
    saved too, so that a model may mix them with those of jaxconv.

    Parameters
    ----------
    prim
        The primitive that JAX asks about.
    *_, **params
        What it is applied to, and its parameters, which do not matter.

    Returns
    -------
    bool
        Whether it is a convolution.

    Notes
    -----
    To save matrix products too, join the policies by
    ``jax.checkpoint_policies.save_from_both_policies(save_convolutions, jax.checkpoint_policies.dots_saveable)``.

    Examples
    --------
    The layer keeps the result of its convolution, and recomputes the two functions after it:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxconv
    >>> def layer(w, x):
    ...     return jnp.sin(jnp.tanh(jaxconv.lax.conv(x, w, (1,), "SAME")))
    >>> saving = jax.checkpoint(layer, policy=jaxconv.checkpoint_policies.save_convolutions)
    >>> x, w = jnp.ones((2, 3, 8)), jnp.ones((4, 3, 5))
    >>> str(jax.make_jaxpr(jax.grad(lambda w: saving(w, x).sum()))(w)).count(" jaxconv[")
    2

    One is the convolution, the other its gradient. Without the policy the convolution is computed twice:

    >>> forgetting = jax.checkpoint(layer)
    >>> str(jax.make_jaxpr(jax.grad(lambda w: forgetting(w, x).sum()))(w)).count(" jaxconv[")
    3
    """
    return prim is conv_p or getattr(prim, "name", None) == "conv_general_dilated"
