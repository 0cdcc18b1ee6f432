"""Causal convolutions as long as the sequence, and the filter of Hyena."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as flax_promote_dtype
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv import lax
from jaxconv._ops import check_convention
from jaxconv._plan import check_method
from jaxconv._spec import Convention, Method, is_static
from jaxconv.nn import _arguments
from jaxconv.nn._arguments import DEFAULT_KERNEL_INIT

DEFAULT_SKIP_INIT = nnx.initializers.normal(1.0)


class LongConv(nnx.Module):
    r"""Causal convolution of each feature with a filter as long as the sequence, as in Hyena and S4.

    .. math:: y[t, c] = D[c] \, x[t, c] + \sum_{k = 0}^{t} h[k, c] \, x[t - k, c]

    The filter *h* is a parameter (*explicit*, with ``kernel_size``) or what a function or module of yours returns for
    the length of the sequence (*implicit*, with ``implicit_filter``), such as `HyenaFilter` or the impulse response of
    a linear state space model. *D* is the skip term of both models.

    Parameters
    ----------
    in_features
        Number of features.
    kernel_size
        Number of taps of an explicit filter. Shorter sequences meet the taps of the smallest lags only; longer ones
        meet zeros beyond the last tap.
    implicit_filter
        A function from a length *n* to an array of shape ``(n, in_features)``, whose entry k is the
        response k samples after an impulse. It is called once in each call of the layer. A `flax.nnx.Module` is part
        of the layer, and its parameters are trained with it.
    use_skip
        Whether to add the skip term.
    dtype, param_dtype, precision, promote_dtype, preferred_element_type, rngs
        As for `Conv`.
    kernel_init, skip_init
        Initialisers: of the explicit filter, and of *D*, by default of normal numbers with variance ``1 / kernel_size``
        and 1.
    kernel_metadata, skip_metadata
        Metadata of the parameters, such as their sharding.
    convention
        ``"convolution"``, as the formula says. Under ``"correlation"``, which excludes implicit filters, the kernel is
        stored in reverse, as that of ``DepthwiseConv(padding="CAUSAL")`` is by default: its last entry is h[0].
    method
        ``"auto"`` (the fastest of all algorithms, which is an FFT if the sequence is long), ``"direct"`` or another
        one, as for `Conv`.

    Raises
    ------
    TypeError
        If an argument is not of its type.
    ValueError
        If the arguments contradict each other; when called, if the input or what ``implicit_filter`` returned is
        not of the right shape.

    Notes
    -----
    A call takes ``inputs`` of shape ``(*batch, length, in_features)``, with any number of batch axes or none, and
    returns the same shape. The parameters are ``skip``, of shape ``(in_features,)``, and ``kernel`` if the filter is
    explicit, of the shape ``(kernel_size, 1, in_features)`` of a depthwise `Conv`.

    *Causality* is exact for ``method="direct"`` and every algorithm that is local: an output is computed from its own
    and earlier inputs alone. An FFT blurs it. Outputs before the first input that is not zero are then not zeros but
    rounding errors, relative to the norm of the whole sequence, and one NaN or infinity spoils all outputs, earlier
    ones included. Nothing else leaks: the transforms are long enough that the sequence's end does not wrap around.

    References
    ----------
    M. Poli et al., *Hyena Hierarchy: Towards Larger Convolutional Language Models*, ICML 2023, arXiv:2302.10866.

    A. Gu, A. Gupta, K. Goel and C. Ré, *On the Parameterization and Initialization of Diagonal State Space Models*,
    NeurIPS 2022, arXiv:2206.11893.

    Examples
    --------
    An explicit filter:

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> layer = nn.LongConv(1, 4, use_skip=False, method="direct", rngs=nnx.Rngs(0))
    >>> layer.kernel[...] = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)
    >>> layer(jnp.array([[0.0], [1.0], [0.0], [10.0], [0.0], [0.0]]))[:, 0]
    Array([ 0.,  1.,  2., 13., 24., 30.], dtype=float32)

    The impulse response of a bank of first-order recurrences, ``s[t] = decay * s[t - 1] + x[t]``, of which the decays
    are learnt:

    >>> class Recurrences(nnx.Module):
    ...     def __init__(self, features):
    ...         self.rate = nnx.Param(jnp.linspace(0.1, 1.0, features))
    ...     def __call__(self, length):
    ...         return jnp.exp(-self.rate[...] * jnp.arange(length)[:, None])
    >>> layer = nn.LongConv(8, implicit_filter=Recurrences(8), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 500, 8))).shape
    (2, 500, 8)
    >>> sorted(nnx.state(layer, nnx.Param))
    ['implicit_filter', 'skip']
    """

    def __init__(
        self,
        in_features: int,
        kernel_size: int | Sequence[int] | None = None,
        *,
        implicit_filter: Callable[[int], Any] | None = None,
        use_skip: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: Any = None,
        kernel_init: Callable[..., Any] = DEFAULT_KERNEL_INIT,
        skip_init: Callable[..., Any] = DEFAULT_SKIP_INIT,
        promote_dtype: Callable[..., Any] = flax_promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        skip_metadata: Mapping[str, Any] = MappingProxyType({}),
        convention: Convention = "convolution",
        method: Method = "auto",
    ):
        in_features = _arguments.positive("in_features", in_features)
        _arguments.check_options(
            use_skip=use_skip,
            dtype=dtype,
            param_dtype=param_dtype,
            kernel_init=kernel_init,
            skip_init=skip_init,
            promote_dtype=promote_dtype,
            preferred_element_type=preferred_element_type,
            rngs=rngs,
            kernel_metadata=kernel_metadata,
            skip_metadata=skip_metadata,
        )
        if (kernel_size is None) == (implicit_filter is None):
            given = "neither" if kernel_size is None else f"both, {kernel_size} and {implicit_filter!r}"
            raise ValueError(
                "give either kernel_size, the number of taps of a filter that is a parameter, or implicit_filter, a "
                f"function from a length to an array of shape (length, {in_features}): got {given}"
            )
        self.convention: Convention = check_convention(convention)
        self.method = check_method(method)
        self.implicit_filter = implicit_filter
        self.kernel_size: tuple[int, ...] | None = None
        self.kernel: nnx.Param[jax.Array] | None = nnx.data(None)
        if kernel_size is None:
            if not callable(implicit_filter):
                raise TypeError(
                    "implicit_filter must be a function from a length to an array of shape (length, "
                    f"{in_features}), got {implicit_filter!r}"
                )
            self._check_implicit()
        else:
            self.kernel_size = _arguments.kernel_sizes(kernel_size)
            if len(self.kernel_size) != 1:
                raise ValueError(f"kernel_size must be one integer, the number of taps, got {kernel_size}")
            shape = (*self.kernel_size, 1, in_features)
            self.kernel = nnx.Param(kernel_init(rngs.params(), shape, param_dtype), **kernel_metadata)
            _arguments.check_parameter("kernel", self.kernel, shape)
        self.skip: nnx.Param[jax.Array] | None = nnx.data(None)
        if use_skip:
            self.skip = nnx.Param(skip_init(rngs.params(), (in_features,), param_dtype), **skip_metadata)
            _arguments.check_parameter("skip", self.skip, (in_features,))
        self.in_features = in_features
        self.use_skip = use_skip
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Convolve ``inputs``.

        Parameters
        ----------
        inputs
            Shape ``(*batch, length, in_features)``, with any number of batch axes or none.
        out_sharding
            Sharding of the result, on a mesh with explicit axes.

        Returns
        -------
        jax.Array
            Of the shape of ``inputs``.

        Raises
        ------
        ValueError
            If the input has too few axes or another number of features, or ``implicit_filter`` returned
            another shape than it was asked for.
        """
        inputs = _arguments.inputs(inputs, self.kernel_size, self.in_features, ndim=1)
        batch, length = inputs.shape[:-2], inputs.shape[-2]
        skip = None if self.skip is None else self.skip[...]
        inputs, kernel, skip = self.promote_dtype((inputs, self._taps(length), skip), dtype=self.dtype)
        y = lax.conv_general_dilated(
            inputs.reshape(math.prod(batch), length, self.in_features),
            kernel,
            (1,),
            [(kernel.shape[0] - 1, 0)],
            dimension_numbers=("NHC", "HIO", "NHC"),
            feature_group_count=self.in_features,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
            convention=self.convention,
            method=self.method,
        )
        y = y.reshape(*batch, length, self.in_features)
        if skip is not None:
            y += skip.astype(y.dtype) * inputs.astype(y.dtype)
        return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)

    def _taps(self, length: int) -> jax.Array:
        """Return the kernel that a sequence meets, of one tap at least."""
        if self.implicit_filter is not None:
            self._check_implicit()
            length = max(length, 1) if is_static(length) else length
            kernel = self.implicit_filter(length)
            kernel = jnp.asarray(_arguments.array(f"what implicit_filter({length}) returned", kernel))
            if kernel.shape != (length, self.in_features):
                raise ValueError(
                    f"implicit_filter({length}) returned shape {kernel.shape}, but was asked for "
                    f"{(length, self.in_features)}, (length, in_features)"
                )
            return kernel[:, None]
        if self.kernel is None:
            raise ValueError("the layer has neither a kernel nor an implicit_filter")
        kernel = self.kernel[...]
        if not is_static(length) or length >= kernel.shape[0]:
            return kernel
        taps = max(length, 1)
        return kernel[:taps] if self.convention == "convolution" else kernel[kernel.shape[0] - taps :]

    def _check_implicit(self) -> None:
        if check_convention(self.convention) == "correlation":
            raise ValueError(
                "convention='correlation' says that a kernel is stored in reverse, but an implicit filter is a "
                "function of the lag: leave convention='convolution'"
            )


class HyenaFilter(nnx.Module):
    r"""Implicit filter of Hyena: a small network of the lag, under a window that decays exponentially.

    .. math:: h[k, c] = \mathrm{network}_c(z(k)) \, (e^{-|\delta_c| \, k / (n - 1)} + s)

    (*n* the ``length``, *s* the ``shift``). The network's input *z* is the position :math:`k / (n - 1)` and the real
    and imaginary part of :math:`e^{-2 \pi i f k / n}` for frequencies *f* between 0 and ``(embedding - 1) / 2 - 1``;
    its layers are dense, with sines :math:`\sin(a \, \cdot)` between them, whose frequencies *a* are learnt. The decays
    :math:`\delta_c` are spaced evenly between those with which the window falls to ``target`` at the positions
    ``slow_decay`` and ``fast_decay``.

    Parameters
    ----------
    in_features
        Number of features.
    length
        Length of the longest sequences: the lag at which the position is 1. Shorter sequences get the first taps of
        the same filter; for longer ones it is continued by the formula.
    embedding
        Number of inputs of the network: odd, at least 3.
    width
        Number of units of the network's hidden layers.
    depth
        Number of hidden layers.
    frequency
        Initial frequency of the sines.
    fast_decay, slow_decay
        Positions, as fractions of the length, at which the windows of the last and of the first feature have fallen to
        ``target``.
    target
        A number between 0 and 1.
    shift
        What is added to the windows.
    param_dtype
        dtype of the parameters and of the filter.
    rngs
        Random keys for the initialisers, those of `flax.nnx.Linear`.

    Raises
    ------
    TypeError
        If an argument is not of its type.
    ValueError
        If a number is out of its range.

    Notes
    -----
    In the reference implementation (github.com/HazyResearch/safari, ``HyenaFilter``) the inputs *z* are parameters
    too, with a small learning rate of their own; here they are constants. Its defaults are those of this class.

    References
    ----------
    M. Poli et al., *Hyena Hierarchy: Towards Larger Convolutional Language Models*, ICML 2023, arXiv:2302.10866,
    section 3.3 and appendix D.3.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> rngs = nnx.Rngs(0)
    >>> layer = nn.LongConv(8, implicit_filter=nn.HyenaFilter(8, 1000, rngs=rngs), rngs=rngs)
    >>> layer(jnp.ones((2, 300, 8))).shape
    (2, 300, 8)
    """

    def __init__(
        self,
        in_features: int,
        length: int,
        *,
        embedding: int = 3,
        width: int = 16,
        depth: int = 3,
        frequency: float = 1.0,
        fast_decay: float = 0.3,
        slow_decay: float = 1.5,
        target: float = 1e-2,
        shift: float = 0.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        in_features = _arguments.positive("in_features", in_features)
        self.length = _arguments.positive("length", length)
        embedding = _arguments.integer("embedding", embedding)
        if embedding < 3 or embedding % 2 == 0:
            raise ValueError(
                f"embedding must be odd and at least 3 (the position, and pairs of sine and cosine), got {embedding}"
            )
        width, depth = _arguments.positive("width", width), _arguments.positive("depth", depth)
        for name, value in (("fast_decay", fast_decay), ("slow_decay", slow_decay)):
            if not _arguments.real(name, value) > 0:
                raise ValueError(f"{name} must be positive, a fraction of the length, got {value}")
        if not 0 < _arguments.real("target", target) < 1:
            raise ValueError(f"target must lie between 0 and 1, got {target}")
        _arguments.check_options(param_dtype=param_dtype, rngs=rngs)
        self.in_features, self.embedding = in_features, embedding
        self.fast_decay, self.slow_decay, self.target = fast_decay, slow_decay, target
        self.shift = _arguments.real("shift", shift)
        self.frequency = nnx.Param(jnp.full((width,), _arguments.real("frequency", frequency), param_dtype))
        sizes = [embedding, *(width,) * depth]
        self.hidden = nnx.List(
            [nnx.Linear(n, m, param_dtype=param_dtype, rngs=rngs) for n, m in itertools.pairwise(sizes)]
        )
        self.output = nnx.Linear(width, in_features, use_bias=False, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, length: int) -> jax.Array:
        """Return the filter's first taps.

        Parameters
        ----------
        length
            How many.

        Returns
        -------
        jax.Array
            Shape ``(length, in_features)``.
        """
        dtype = self.frequency.dtype
        lag = jnp.arange(length, dtype=dtype)[:, None]
        position = lag / max(self.length - 1, 1)
        bands = (self.embedding - 1) // 2
        angles = 2 * math.pi / self.length * lag * jnp.linspace(1e-4, bands - 1, bands, dtype=dtype)
        y = jnp.concatenate([position, jnp.cos(angles), -jnp.sin(angles)], 1)
        for layer in self.hidden:
            y = jnp.sin(self.frequency[...] * layer(y))
        slow, fast = (math.log(self.target) / decay for decay in (self.slow_decay, self.fast_decay))
        window = jnp.exp(position * jnp.linspace(slow, fast, self.in_features, dtype=dtype))
        return self.output(y) * (window + self.shift)
