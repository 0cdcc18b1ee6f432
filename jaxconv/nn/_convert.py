"""Conversion of modules between the two conventions."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeGuard, TypeVar

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
Optimizer = TypeVar("Optimizer")

Path: TypeAlias = tuple[Any, ...]
Kernels: TypeAlias = dict[Path, tuple[tuple[int, ...], int]]


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


def optimizer_with_convention(optimizer: Optimizer, module: nnx.Module, convention: Convention) -> Optimizer:
    """Return a copy of an optimiser that continues the training of ``with_convention(module, convention)``.

    Whatever it holds for a kernel that `with_convention` reverses, such as momentum, is reversed too. An array belongs
    to a parameter if its path ends in that of the parameter, as optax makes it, also inside `optax.masked`,
    `optax.multi_transform` and `optax.chain`.

    Parameters
    ----------
    optimizer
        A `flax.nnx.Optimizer` of ``module``, or the state of an optax transformation that was initialised with the
        module's parameters (as `flax.nnx.State`, as dictionaries, or the module itself). It stays as it is.
    module
        The module before its conversion.
    convention
        As for `with_convention`.

    Returns
    -------
    flax.nnx.Optimizer or state
        An optimiser of the converted module.

    Raises
    ------
    TypeError
        As `with_convention`; if ``optimizer`` is an optax transformation, which has no state.
    ValueError
        As `with_convention`; if it cannot be told what of an array is to be reversed: of one that has the size or the
        number of axes of kernels, but belongs to no parameter (as in `optax.flatten`), or of one whose shape does not
        tell which axes are its kernel's.

    Notes
    -----
    Of an array that lacks one axis of its kernel, such as the factored moments of `optax.adafactor`, the spatial axes
    that are left are reversed; of one with an axis more in front, such as the memory of `optax.lbfgs`, those behind it.

    Examples
    --------
    >>> import optax
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> model = nn.Conv(1, 1, 3, rngs=nnx.Rngs(0))
    >>> optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    >>> state = optax.adam(1e-3).init(nnx.state(model, nnx.Param))
    >>> # ... training ...
    >>> optimizer = nn.optimizer_with_convention(optimizer, model, "convolution")
    >>> state = nn.optimizer_with_convention(state, model, "convolution")
    >>> model = nn.with_convention(model, "convolution")
    """
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        raise TypeError(
            f"optimizer must be a flax.nnx.Optimizer or the state of an optax transformation, got the transformation "
            f"itself ({type(optimizer).__name__}): give what its init and update return"
        )
    with_convention(module, convention)  # raises where there is no such module
    kernels = _spatial_axes(module, convention)
    if not isinstance(optimizer, nnx.Optimizer):
        return jax.tree.map_with_path(functools.partial(_reverse, kernels), optimizer)
    copy = nnx.clone(optimizer)
    leaves = jax.tree_util.tree_leaves_with_path(copy.opt_state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    for keys, leaf in leaves:
        value = leaf.get_value()
        if hasattr(value, "shape"):  # others stand where a mask left out a parameter
            leaf.set_value(_reverse(kernels, keys, value))
    return copy


def _spatial_axes(module: nnx.Module, convention: Convention) -> Kernels:
    """Return, by the path of each parameter, its shape and how many spatial axes are to be reversed."""
    # At the paths that parameters have in the state of the module, hence in the optimiser's.
    counts = nnx.clone(module)
    shapes = _by_path(counts, lambda value: value.shape)
    nnx.update(counts, jax.tree.map(lambda _: jnp.zeros((), int), nnx.state(counts, nnx.Variable)))
    for _, part in nnx.iter_modules(counts):
        if _is_read_otherwise(part, convention):
            part.kernel.set_value(jnp.asarray(len(part.kernel_size)))
    return {path: (shapes[path], count) for path, count in _by_path(counts, int).items()}


def _is_read_otherwise(part: Any, convention: Convention) -> TypeGuard[Any]:
    """Whether a module is a layer whose kernel the other convention reads; implicit filters know none."""
    has_kernel = isinstance(part, Conv | ConvTranspose) or (isinstance(part, LongConv) and part.kernel is not None)
    return has_kernel and part.convention != convention


def _by_path(module: nnx.Module, function: Callable[[Any], Any]) -> dict[Path, Any]:
    flat: dict[Any, Any] = dict(nnx.traversals.flatten_mapping(nnx.to_pure_dict(nnx.state(module, nnx.Variable))))
    return {path: function(value) for path, value in flat.items()}


def _reverse(kernels: Kernels, keys: Sequence[Any], leaf: Any) -> Any:
    """Reverse an array of an optimiser's state if it belongs to a kernel that is reversed."""
    names = tuple(_name(key) for key in keys)
    # Inside of an nnx.Variable the array is called "value". The longest path, since a parameter of the module itself
    # may be called as one of a part.
    ends = [names[start:stop] for stop in (len(names), len(names) - 1) for start in range(stop)]
    path = next((end for end in ends if end in kernels), None)
    shape = jnp.shape(leaf)
    if path is None:
        size = sum(math.prod(kernel) for kernel, count in kernels.values() if count)
        if size and (len(shape) > 2 or math.prod(shape) >= size):
            raise ValueError(
                f"the optimiser's array at {_place(names)}, of shape {shape}, has the name of no parameter of the "
                "module: it cannot be told which part of it, if any, is to be reversed"
            )
        return leaf
    kernel, count = kernels[path]
    if count == 0 or math.prod(shape) == 1:
        return leaf
    space = range(count)
    candidates = {tuple(space)} if shape == kernel else set()
    if shape[1:] == kernel:
        candidates.add(tuple(axis + 1 for axis in space))
    for gone in range(len(kernel)):
        if shape == kernel[:gone] + kernel[gone + 1 :]:
            candidates.add(tuple(axis - (axis > gone) for axis in space if axis != gone))
    if len(candidates) != 1:
        raise ValueError(
            f"the optimiser's array at {_place(names)} has shape {shape}, which does not tell where the {count} "
            f"spatial axes of its kernel, of shape {kernel}, are"
        )
    return flip(leaf, candidates.pop())


def _name(key: Any) -> Any:
    """Return the name or number in an entry of a path, of whichever kind."""
    return next((getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)), None)


def _place(names: Sequence[Any]) -> str:
    return repr(".".join(map(str, names)))
