"""The registry of algorithms. Each stands in a file of its own with the same three functions."""

import dataclasses
from collections.abc import Callable, Collection

import jax

from jaxconv._algorithms import exchange, fft, lags, matmul, overlap, planes, polyphase, shift, squeeze, toeplitz, xla
from jaxconv._cost import Cost
from jaxconv._spec import Problem

# The axes over which operands are commonly sharded.
AXES = ("groups", "batch", "in_channels", "out_channels")


def _nothing(problem: Problem) -> Collection[str]:
    return ()


def _of_fft(problem: Problem) -> Collection[str]:
    # Before JAX 0.12 the operands of a Fourier transform are gathered, whichever of their axes is sharded. Since then a
    # sharded batch stays where it is, but groups and output channels behind one do not (`_transforms.flattened`): that
    # is not said, since whoever shards only the batch would pay for it.
    return AXES if jax.__version_info__ < (0, 12) else ("in_channels",)


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One way to compute a convolution.

    The planner and the lowering hand over *simplified* problems only (see `jaxconv._simplify.simplify`): static,
    non-empty, with no negative padding.

    Attributes
    ----------
    name
        What users pass as ``method=``.
    summary
        One line for reports and documentation.
    supports
        Returns ``None`` if it can run the problem, otherwise the reason why not.
    cost
        Returns what running it takes (without what `inner` takes).
    run
        Computes the result from the problem and the canonical operands. If there is an `inner` problem it takes a
        fourth argument: the function, of a problem and its operands, to compute that with; if it goes `by_platform`, a
        `jaxconv._algorithms._once.Call`.
    uses_fft
        Whether it computes through a Fourier transform, so that its error is relative to the largest values.
    local
        Whether each output is computed from its own window of the input only, so that a NaN or an infinity elsewhere
        cannot reach it. ``method="direct"`` admits no others.
    inner
        Returns the simpler problem that remains, if the algorithm only rearranges operands and result.
    exchanges
        Whether batch and output channels change places in the inner problem.
    by_platform
        Whether it computes in another way on CPU, as those that are written out as many slices: XLA would fuse these
        with what reads the result.
    gathers
        Returns those of `AXES` for which XLA, where it shards operands over devices by itself, moves data between the
        devices before it computes, without what `inner` adds.
    """

    name: str
    summary: str
    supports: Callable[[Problem], str | None]
    cost: Callable[[Problem], Cost]
    run: Callable[..., jax.Array]
    uses_fft: bool = False
    local: bool = True
    inner: Callable[[Problem], Problem] | None = None
    exchanges: bool = False
    by_platform: bool = False
    gathers: Callable[[Problem], Collection[str]] = _nothing


REGISTRY: dict[str, Algorithm] = {}


def register(algorithm: Algorithm) -> None:
    """Add an algorithm to the registry.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if algorithm.name in REGISTRY:
        raise ValueError(f"an algorithm named {algorithm.name!r} is registered already")
    REGISTRY[algorithm.name] = algorithm


register(Algorithm("xla", "XLA's own convolution", xla.supports, xla.cost, xla.run))
register(
    Algorithm(
        "shift", "sum of shifted slices", shift.supports, shift.cost, shift.run, by_platform=True, gathers=shift.gathers
    )
)
register(
    Algorithm(
        "matmul",
        "matrix products over windows",
        matmul.supports,
        matmul.cost,
        matmul.run,
        by_platform=True,
        gathers=matmul.gathers,
    )
)
register(
    Algorithm(
        "polyphase",
        "phases of what is dilated or strided, as an ordinary convolution",
        polyphase.supports,
        polyphase.cost,
        polyphase.run,
        inner=polyphase.inner,
        gathers=polyphase.gathers,
    )
)
register(
    Algorithm(
        "planes",
        "volumes as batches of planes, one axis of the kernel written out",
        planes.supports,
        planes.cost,
        planes.run,
        inner=planes.inner,
        gathers=planes.gathers,
    )
)
register(
    Algorithm(
        "squeeze",
        "axes of one sample, tap or output as channels or batch",
        squeeze.supports,
        squeeze.cost,
        squeeze.run,
        inner=squeeze.inner,
    )
)
register(
    Algorithm(
        "exchange",
        "sums over positions with windows of the kernel instead of the input",
        exchange.supports,
        exchange.cost,
        exchange.run,
        inner=exchange.inner,
        exchanges=True,
    )
)
register(
    Algorithm(
        "toeplitz",
        "product with banded Toeplitz matrices",
        toeplitz.supports,
        toeplitz.cost,
        toeplitz.run,
        local=False,
        gathers=toeplitz.gathers,
    )
)
register(
    Algorithm(
        "lags",
        "sums over diagonals of a matrix product",
        lags.supports,
        lags.cost,
        lags.run,
        local=False,
        gathers=lags.gathers,
    )
)
register(
    Algorithm(
        "fft",
        "product of whole Fourier transforms",
        fft.supports,
        fft.cost,
        fft.run,
        by_platform=True,
        uses_fft=True,
        local=False,
        gathers=_of_fft,
    )
)
register(
    Algorithm(
        "overlap",
        "overlap-save: Fourier transforms of overlapping stretches",
        overlap.supports,
        overlap.cost,
        overlap.run,
        uses_fft=True,
        local=False,
        gathers=_of_fft,
    )
)
