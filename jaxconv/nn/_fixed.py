"""A filter that is given, not learnt."""

from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxconv.nn import _arguments
from jaxconv.nn._arguments import Sizes
from jaxconv.nn._conv import Conv

# What `Conv` takes and a filter without features and parameters of its own does not.
_OF_PARAMETERS = {
    "in_features",
    "out_features",
    "kernel_size",
    "feature_group_count",
    "use_bias",
    "mask",
    "param_dtype",
    "kernel_init",
    "bias_init",
    "rngs",
    "kernel_metadata",
    "bias_metadata",
}


class FixedFilter(Conv):
    """Filter each feature of the input with one given kernel, such as a Gaussian.

    The kernel is an `flax.nnx.Variable`, not an `flax.nnx.Param`: optimisers, which ask for parameters, leave it alone,
    and it is saved with the model. Gradients with respect to the input flow through.

    Parameters
    ----------
    kernel
        The kernel, one axis for each spatial axis.
    strides
        One integer per spatial axis, or one for all.
    **options
        Arguments of `Conv` that concern neither features nor parameters: ``padding``, ``input_dilation``,
        ``kernel_dilation``, ``dtype``, ``precision``, ``convention``, ``method``, ``boundary``, ``cval`` and so on.

    Raises
    ------
    TypeError, ValueError
        As `Conv`; a TypeError for an argument that concerns features or parameters, a ValueError if the kernel has no
        axis or is empty.

    Notes
    -----
    A call takes ``(*batch, *spatial, features)`` with any number of features, and returns as many. Integer inputs and
    kernels become floating point, as in other layers.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxconv import nn
    >>> blur = nn.FixedFilter(jnp.array([0.25, 0.5, 0.25]), boundary="reflect")
    >>> blur(jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 8.0]]))  # two features
    Array([[3., 0.],
           [1., 2.],
           [0., 6.]], dtype=float32)
    """

    def __init__(self, kernel: ArrayLike, strides: Sizes = 1, **options: Any):
        if unknown := sorted(_OF_PARAMETERS & options.keys()):
            raise TypeError(
                f"FixedFilter takes no {', '.join(unknown)}: it filters every feature with the kernel that it is given"
            )
        kernel = jnp.asarray(_arguments.array("the kernel", kernel))
        if kernel.ndim == 0 or kernel.size == 0:
            raise ValueError(f"the kernel needs an axis for each spatial axis, none empty, got shape {kernel.shape}")
        # Each feature is an image of its own to a convolution of one feature.
        super().__init__(
            1,
            1,
            kernel.shape,
            strides,
            use_bias=False,
            param_dtype=kernel.dtype,
            kernel_init=lambda key, shape, dtype: kernel.reshape(shape),
            rngs=nnx.Rngs(0),
            **options,
        )
        self.kernel = nnx.Variable(self.kernel[...])

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Filter ``inputs``.

        Parameters
        ----------
        inputs
            Shape ``(*batch, *spatial, features)``, with any number of batch axes or none.
        out_sharding
            Sharding of the result, on a mesh with explicit axes.

        Returns
        -------
        jax.Array
            Shape ``(*batch, *outputs, features)``.

        Raises
        ------
        ValueError
            If the input has too few axes.
        """
        ndim = len(self.kernel_size)
        inputs = _arguments.inputs(inputs, self.kernel_size, None)
        # Features behind the other batch axes, since a sharded axis can be merged with others only if it leads.
        images = jnp.moveaxis(inputs, -1, -ndim - 1)
        y = jnp.moveaxis(super().__call__(images[..., None])[..., 0], -ndim - 1, -1)
        return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)
