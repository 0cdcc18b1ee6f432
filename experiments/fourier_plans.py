"""What `jaxconv.plan` says of the algorithms: the registry itself is private, its answers are not."""

from __future__ import annotations

from typing import Any

import jaxconv


def registered() -> tuple[str, ...]:
    """Return the names of all algorithms, whatever they can run."""
    decision = jaxconv.plan((16,), (3,))[0].forward
    return tuple(candidate.name for candidate in decision.candidates) if decision else ()


def able(decision: Any) -> dict[str, Any]:
    """Return the candidates of a decision that can run its problem, by name."""
    return {candidate.name: candidate for candidate in decision.candidates if candidate.cost is not None}


def transforms(candidate: Any) -> bool:
    """Tell whether an algorithm computes through a Fourier transform."""
    return candidate.cost.transform_flops > 0
