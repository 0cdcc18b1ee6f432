"""`flax.nnx.Conv` with a choice of convention, of algorithm and of boundary."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as flax_promote_dtype
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv import lax
from jaxconv._boundary import Boundary, extend
from jaxconv._dtypes import is_complex
from jaxconv._ops import check_convention
from jaxconv._plan import check_method
from jaxconv._spec import Convention, Method, dilated
from jaxconv.nn import _arguments, _paddings
from jaxconv.nn._arguments import DEFAULT_BIAS_INIT, DEFAULT_KERNEL_INIT, Sizes
from jaxconv.nn._paddings import Padding


class Conv(nnx.Conv):
    r"""Convolution layer: `flax.nnx.Conv`, with ``convention``, ``method`` and ``boundary``.

    With the default ``convention="correlation"`` it computes what `flax.nnx.Conv` computes from the same parameters,

    .. math:: y[n, m, o] = b[o] + \sum_{k, c} w[k, c, o] \, x[n, m s + k d - p, c]

    (stride *s*, kernel dilation *d*, *p* samples of padding in front), and with ``convention="convolution"`` the same
    with :math:`w[K - 1 - k, c, o]`: the kernel reversed along its spatial axes. The parameters are those of Flax:
    ``kernel`` of shape ``(*kernel_size, in_features // feature_group_count, out_features)`` and ``bias`` of shape
    ``(out_features,)``.

    Parameters
    ----------
    in_features, out_features
        Number of input and of output features, both multiples of ``feature_group_count``.
    kernel_size
        Shape of the kernel: one integer per spatial axis; a single integer means one spatial axis.
    strides
        One integer per spatial axis, or one for all.
    padding
        ``"SAME"`` (zeros; as many outputs as inputs at stride 1), ``"SAME_LOWER"``, ``"VALID"`` (none),
        ``"CIRCULAR"`` (periodic), ``"REFLECT"`` (mirrored, the outermost sample not repeated), ``"CAUSAL"`` (one
        spatial axis, zeros in front only), an integer, or for each spatial axis an integer or a pair ``(low, high)``.
        The padding does not depend on the convention. For an even kernel, which has no central sample, ``"SAME"``
        puts the smaller half of its K - 1 zeros in front under both, so that the sample that meets ``x[m]`` is ``w[(K
        - 1) // 2]`` under correlation and ``w[K // 2]`` under convolution.
    input_dilation, kernel_dilation
        One integer per spatial axis, or one for all: the spacing of the samples of the input (then the padding must be
        given in numbers) and of the kernel.
    feature_group_count
        Number of groups of features that are convolved separately.
    use_bias
        Whether to add a bias.
    mask
        Array of the kernel's shape by which the kernel is multiplied at each call. It masks the parameter as it stands,
        whatever the convention.
    dtype
        dtype of the computation; by default that of input and parameters together.
    param_dtype
        dtype of the parameters.
    precision
        As for `jax.lax.conv_general_dilated`.
    kernel_init, bias_init
        Initialisers.
    conv_general_dilated
        The function that does the work, `jaxconv.lax.conv_general_dilated` by default. One of your own is also given
        ``convention`` and ``method`` where they are not the defaults.
    promote_dtype
        Function ``((input, kernel, bias), dtype=dtype)`` that returns the three in the dtype of the computation.
    preferred_element_type
        dtype of the convolution's result.
    rngs
        Random keys for the initialisers.
    kernel_metadata, bias_metadata
        Metadata of the parameters, such as their sharding.
    convention
        ``"correlation"`` (what Flax calls a convolution) or ``"convolution"``.
    method
        ``"direct"`` (the fastest algorithm that is no FFT, gradients included), ``"auto"`` (the fastest of all), the
        name of an algorithm, or a triple of names: forward, input gradient, kernel gradient.
    boundary
        What stands beyond the ends of the input in place of the padding's zeros, by the names of `scipy.ndimage`:
        ``"constant"`` (the value ``cval``), ``"nearest"``, ``"reflect"`` (the outermost sample repeated, unlike
        ``padding="REFLECT"``), ``"mirror"`` (not repeated) or ``"wrap"``; one for all spatial axes, or one for each.
        The padding says how many samples of it are read: ``"SAME"``, ``"SAME_LOWER"`` or numbers, of which negative
        ones crop what the others have extended. With ``"CAUSAL"`` only ``"constant"`` and ``"nearest"`` make sense,
        since the others read later samples in front of the first; ``"VALID"``, ``"CIRCULAR"``, ``"REFLECT"`` and
        ``input_dilation`` exclude a boundary. At stride 1 a filter with ``"SAME"`` equals that of SciPy; for an even
        kernel `scipy.ndimage.correlate` is centred as ``"SAME_LOWER"``, `scipy.ndimage.convolve` as ``"SAME"``.
    cval
        The value beyond the ends of axes whose boundary is ``"constant"``: a number, converted to the dtype of the
        computation.

    Raises
    ------
    TypeError
        If a stride, dilation, size or padding is no integer.
    ValueError
        If the arguments contradict each other or name no known padding, convention or method; when called, if the
        input's shape does not fit the layer.

    Notes
    -----
    A call takes ``inputs`` of shape ``(*batch, *spatial, in_features)``, with any number of batch axes or none, and
    returns ``(*batch, *outputs, out_features)``. What does not shape the parameters (``strides``, ``padding``,
    ``convention``, ``method`` and so on) remains an attribute that may be set.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> layer = nn.Conv(1, 1, 3, padding="CAUSAL", use_bias=False, convention="convolution", rngs=nnx.Rngs(0))
    >>> layer.kernel[...] = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> impulse = jnp.zeros((1, 5, 1)).at[0, 1].set(1.0)
    >>> layer(impulse)[0, :, 0]  # the impulse response, in order
    Array([0., 1., 2., 3., 0.], dtype=float32)
    >>> layer.convention = "correlation"
    >>> layer(impulse)[0, :, 0]
    Array([0., 3., 2., 1., 0.], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: Sizes = 1,
        *,
        padding: Padding = "SAME",
        input_dilation: Sizes = 1,
        kernel_dilation: Sizes = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        mask: jax.Array | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: Any = None,
        kernel_init: Callable[..., Any] = DEFAULT_KERNEL_INIT,
        bias_init: Callable[..., Any] = DEFAULT_BIAS_INIT,
        conv_general_dilated: Callable[..., Any] = lax.conv_general_dilated,
        promote_dtype: Callable[..., Any] = flax_promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        convention: Convention = "correlation",
        method: Method = "direct",
        boundary: Boundary | Sequence[Boundary] | None = None,
        cval: complex = 0.0,
    ):
        in_features, out_features, groups = _arguments.features(in_features, out_features, feature_group_count)
        kernel_size = _arguments.kernel_sizes(kernel_size)
        ndim = len(kernel_size)
        padding = _paddings.padding(padding, ndim)
        input_dilation = _arguments.sizes("input_dilation", input_dilation, ndim)
        if isinstance(padding, str) and any(d > 1 for d in np.atleast_1d(input_dilation)):
            raise ValueError(
                f"padding={padding!r} has no meaning with input_dilation={input_dilation}: give an integer or a pair "
                "(low, high) for each spatial axis, that is, numbers of zeros around the dilated input"
            )
        options: dict[str, Any] = {
            "use_bias": use_bias,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "kernel_init": kernel_init,
            "bias_init": bias_init,
            "conv_general_dilated": conv_general_dilated,
            "promote_dtype": promote_dtype,
            "preferred_element_type": preferred_element_type,
            "rngs": rngs,
            "kernel_metadata": kernel_metadata,
            "bias_metadata": bias_metadata,
        }
        _arguments.check_options(**options)
        meaning = "(*kernel_size, in_features // feature_group_count, out_features)"
        mask = _arguments.mask(mask, (*kernel_size, in_features // groups, out_features), meaning)
        self.boundary = _paddings.boundary(boundary, cval, padding, input_dilation, ndim)
        self.cval = _arguments.number("cval", cval)
        self.convention: Convention = check_convention(convention)
        self.method = check_method(method)
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            _arguments.sizes("strides", strides, ndim),
            padding=padding,
            input_dilation=input_dilation,
            kernel_dilation=_arguments.sizes("kernel_dilation", kernel_dilation, ndim),
            feature_group_count=groups,
            mask=mask,
            precision=precision,
            **options,
        )
        _arguments.check_parameter("kernel", self.kernel, self.kernel_shape)
        if self.bias is not None:
            _arguments.check_parameter("bias", self.bias, (out_features,))

    @property
    def conv_general_dilated(self) -> Callable[..., Any]:
        """The function that does the work, told the convention, the method and the boundary.

        It is put together at each use, so that `convention`, `method` and `boundary` may be set like any other
        attribute, and so that layers made alike have equal graph definitions.
        """
        function = with_choices(self._conv_general_dilated, self.convention, self.method)
        boundary = _paddings.boundary(
            self.boundary, self.cval, self.padding, self.input_dilation, len(self.kernel_size)
        )
        if boundary is None:
            return function
        return functools.partial(_of_extended, function, boundary, self.cval, self.padding == "CAUSAL")

    @conv_general_dilated.setter
    def conv_general_dilated(self, function: Callable[..., Any]) -> None:
        self._conv_general_dilated = function

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Convolve ``inputs``.

        Parameters
        ----------
        inputs
            Shape ``(*batch, *spatial, in_features)``, with any number of batch axes or none.
        out_sharding
            Sharding of the result, on a mesh with explicit axes.

        Returns
        -------
        jax.Array
            Shape ``(*batch, *outputs, out_features)``.

        Raises
        ------
        ValueError
            If the input has too few axes or another number of features.
        """
        inputs = _arguments.inputs(inputs, self.kernel_size, self.in_features)
        batch, image = inputs.shape[: -len(self.kernel_size) - 1], inputs.shape[-len(self.kernel_size) - 1 :]
        if len(batch) == 1:
            return super().__call__(inputs, out_sharding)
        # Flax merges batch axes in a way that fails for empty arrays.
        y = super().__call__(inputs.reshape(math.prod(batch), *image), out_sharding)
        return y.reshape(*batch, *y.shape[1:])


def changed_choices(convention: Convention, method: Method) -> dict[str, Any]:
    """Return those that are not the defaults, so that Flax's layers, which know neither, can stand in for ours."""
    choices = {"convention": (convention, "correlation"), "method": (method, "direct")}
    return {name: value for name, (value, default) in choices.items() if value != default}


def with_choices(function: Callable[..., Any], convention: Convention, method: Method) -> Callable[..., Any]:
    """Return a function that convolves with those choices that are not its defaults."""
    choices = changed_choices(convention, method)
    return functools.partial(function, **choices) if choices else function


def _of_extended(
    function: Callable[..., Any],
    boundary: Sequence[Boundary],
    cval: complex,
    causal: bool,
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    **options: Any,
) -> jax.Array:
    """Call the function on inputs (channels last) that were extended by as much as the padding would add in zeros."""
    if isinstance(cval, complex) and not is_complex(inputs.dtype):
        raise ValueError(f"cval={cval} is complex, but the computation is in {inputs.dtype}: give a real one")
    window = [dilated(taps, d) for taps, d in zip(kernel.shape, rhs_dilation, strict=False)]  # spatial axes come first
    if causal:
        # Flax has put zeros in front already.
        inputs, widths = inputs[:, window[0] - 1 :], [(window[0] - 1, 0)]
    elif isinstance(padding, str):
        widths = jax.lax.padtype_to_pads(inputs.shape[1:-1], window, strides, padding.upper())
    else:
        widths = padding
    added = [(max(low, 0), max(high, 0)) for low, high in widths]
    cropped = [(min(low, 0), min(high, 0)) for low, high in widths]
    extended = extend(inputs, [(0, 0), *added, (0, 0)], ["constant", *boundary, "constant"], cval)
    return function(extended, kernel, strides, cropped, rhs_dilation=rhs_dilation, **options)
