"""Conversion of modules between the two conventions."""

from typing import Any, TypeGuard, TypeVar

import jax
from flax import nnx
from jax import numpy as jnp

from jaxconv._flip import flip
from jaxconv._ops import check_convention
from jaxconv._spec import Convention
from jaxconv.nn._conv import Conv
from jaxconv.nn._long import LongConv
from jaxconv.nn._transpose import ConvTranspose

M = TypeVar("M", bound=nnx.Module)


def with_convention(module: M, convention: Convention) -> M:
    """Return a copy of a module that computes the same function under the given convention.

    In each layer of jaxconv that is of the other convention, the kernel (and its mask) is reversed along the spatial
    axes. All else, layers of Flax and implicit filters among it, is copied as it is.

    Parameters
    ----------
    module
        A `flax.nnx.Module`, which stays as it is. What it shares, layers or parameters, the copy shares too.
    convention
        ``"correlation"`` or ``"convolution"``.

    Returns
    -------
    flax.nnx.Module
        A module of the same class.

    Raises
    ------
    TypeError
        If ``module`` is no `flax.nnx.Module`.
    ValueError
        If the convention is unknown, a kernel to be reversed also belongs to a layer that would need it unreversed, or
        kernels of several models are stacked (convert those inside `flax.nnx.vmap`).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> model = nn.Conv(1, 1, 3, use_bias=False, rngs=nnx.Rngs(0))
    >>> model.kernel[...] = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> nn.with_convention(model, "convolution").kernel[:, 0, 0]
    Array([3., 2., 1.], dtype=float32)
    """
    check_convention(convention)
    if not isinstance(module, nnx.Module):
        raise TypeError(f"module must be a flax.nnx.Module, got {type(module).__name__}")
    copy = nnx.clone(module)
    reversed_kernels: dict[int, tuple[nnx.Variable, int]] = {}
    kept: dict[int, str] = {}
    for path, part in nnx.iter_modules(copy):
        changing = {"kernel"} if _is_read_otherwise(part, convention) else set()
        for name, value in vars(part).items():
            if isinstance(value, nnx.Variable) and name not in changing:
                kept[id(value)] = ".".join(map(str, (*path, name)))
        if _is_read_otherwise(part, convention):
            part.convention = convention
            ndim = len(part.kernel_size)
            if part.kernel.ndim != ndim + 2:
                place = ".".join(map(str, (*path, "kernel")))
                raise ValueError(
                    f"{place!r} has shape {part.kernel.shape}, not {ndim + 2} axes for kernel_size {part.kernel_size}: "
                    "convert stacked models inside nnx.vmap"
                )
            reversed_kernels[id(part.kernel)] = (part.kernel, ndim)
            if getattr(part, "mask", None) is not None:
                part.mask = flip(part.mask, range(ndim))
    for key, (kernel, ndim) in reversed_kernels.items():
        if key in kept:
            raise ValueError(
                f"the kernel {kept[key]!r} is shared by a layer that must reverse it for convention={convention!r} and "
                "one that must not: give the two kernels of their own, or make both layers of one convention"
            )
        kernel[...] = flip(kernel[...], range(ndim))
    return copy


def optimizer_with_convention(optimizer: nnx.Optimizer, module: nnx.Module, convention: Convention) -> nnx.Optimizer:
    """Return a copy of an optimiser that continues the training of ``with_convention(module, convention)``.

    Whatever it holds for a kernel that `with_convention` reverses, such as momentum, is reversed too.

    Parameters
    ----------
    optimizer
        A `flax.nnx.Optimizer` of ``module``, which stays as it is.
    module
        The module before its conversion.
    convention
        As for `with_convention`.

    Returns
    -------
    flax.nnx.Optimizer
        An optimiser of the converted module.

    Raises
    ------
    TypeError, ValueError
        As `with_convention`; a TypeError if ``optimizer`` is no `flax.nnx.Optimizer`.

    Examples
    --------
    >>> import optax
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> model = nn.Conv(1, 1, 3, rngs=nnx.Rngs(0))
    >>> optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    >>> # ... training ...
    >>> optimizer = nn.optimizer_with_convention(optimizer, model, "convolution")
    >>> model = nn.with_convention(model, "convolution")
    """
    if not isinstance(optimizer, nnx.Optimizer):
        raise TypeError(f"optimizer must be a flax.nnx.Optimizer, got {type(optimizer).__name__}")
    with_convention(module, convention)  # raises where there is no such module
    # How many axes to reverse, at the paths that parameters have in the state of the module, hence in the optimiser's.
    counts = nnx.clone(module)
    nnx.update(counts, jax.tree.map(lambda _: jnp.zeros((), int), nnx.state(counts, nnx.Variable)))
    for _, part in nnx.iter_modules(counts):
        if _is_read_otherwise(part, convention):
            part.kernel.set_value(jnp.asarray(len(part.kernel_size)))
    axes: dict[Any, Any] = dict(nnx.traversals.flatten_mapping(nnx.to_pure_dict(nnx.state(counts))))

    copy = nnx.clone(optimizer)
    leaves = jax.tree_util.tree_leaves_with_path(copy.opt_state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    for keys, leaf in leaves:
        names = tuple(getattr(key, "key", None) for key in keys)
        # The longest, since a parameter of the module itself may be called as one of a part.
        count = next((axes[names[i:]] for i in range(len(names)) if names[i:] in axes), 0)
        if count:
            leaf[...] = flip(leaf[...], range(int(count)))
    return copy


def _is_read_otherwise(part: Any, convention: Convention) -> TypeGuard[Any]:
    """Whether a module is a layer whose kernel the other convention reads; implicit filters know none."""
    has_kernel = isinstance(part, Conv | ConvTranspose) or (isinstance(part, LongConv) and part.kernel is not None)
    return has_kernel and part.convention != convention
