"""Convolution and correlation for JAX: one bilinear primitive, an algorithm for each shape, exact adjoints.

The modules carry the names and the semantics of those that people know: `jaxconv.signal` (`scipy.signal`),
`jaxconv.numpy` (`numpy`), `jaxconv.lax` (`jax.lax`) and `jaxconv.nn` (`flax.nnx`; needs Flax, and is imported when it
is first used); `jaxconv.checkpoint_policies` adds to `jax.checkpoint_policies`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxconv import lax, signal
from jaxconv._autotune import autotune
from jaxconv._flip import flip
from jaxconv._report import plan
from jaxconv._tuning import Tuning, tuned

if TYPE_CHECKING:
    from jaxconv import checkpoint_policies, nn, numpy

    __version__: str

__all__ = [
    "Tuning",
    "__version__",
    "autotune",
    "checkpoint_policies",
    "flip",
    "lax",
    "nn",
    "numpy",
    "plan",
    "signal",
    "tuned",
]

_LAZY_MODULES = ("checkpoint_policies", "nn", "numpy")


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"jaxconv.{name}")
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("jaxconv")
    raise AttributeError(f"module 'jaxconv' has no attribute {name!r}")
