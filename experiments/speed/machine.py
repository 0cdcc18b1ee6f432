"""Where and with what something was measured."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

import jax

from experiments.speed import peers


def setting() -> dict[str, Any]:
    """Return date, machine and versions."""
    packages = ("jaxconv", "jax", "jaxlib", "numpy", "scipy", "torch")
    return {
        "date": dt.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "platform": jax.default_backend(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name)},
        "missing": peers.missing(),
    }


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
