"""Which dtypes are computed in which."""

import numpy as np
from jax import numpy as jnp


def accumulation_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype in which sums of products of ``dtype`` are formed: float32 for the half-precision ones."""
    if jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype).itemsize < 4:
        return np.dtype(np.float32)
    return np.dtype(dtype)


def is_inexact(dtype: np.dtype) -> bool:
    """Whether the dtype is real or complex floating point."""
    return jnp.issubdtype(dtype, jnp.inexact)


def is_complex(dtype: np.dtype) -> bool:
    """Whether the dtype is complex."""
    return jnp.issubdtype(dtype, jnp.complexfloating)


def unit_roundoff(dtype: np.dtype) -> float:
    """Return eps of the dtype in which sums are formed, 0 for integers, whose sums are exact modulo their range."""
    return float(jnp.finfo(accumulation_dtype(dtype)).eps) if is_inexact(dtype) else 0.0


def result_rounding(dtype: np.dtype) -> float:
    """Return by how much, relative to them, results are rounded that have a narrower dtype than their sums, at most."""
    return float(jnp.finfo(dtype).eps) / 2 if accumulation_dtype(dtype) != dtype else 0.0
