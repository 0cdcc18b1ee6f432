"""Settings of the whole suite: two CPU devices, 64-bit types, a quick and reproducible Hypothesis profile.

This module is imported by every pytest-xdist worker before any test module, hence before JAX makes its devices.
"""

from __future__ import annotations

import os

DEVICES = "--xla_force_host_platform_device_count=2"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# Compiling dominates the suite, so few examples; `--hypothesis-profile=thorough` searches further.
hypothesis.settings.register_profile("quick", max_examples=15, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("thorough", max_examples=500, deadline=None)
hypothesis.settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "x32: run with JAX's default 32-bit types (the suite's default is 64)")


@pytest.fixture(autouse=True)
def x64(request: pytest.FixtureRequest):
    """64-bit types for every test but those marked ``x32``, restored afterwards (doctests keep JAX's default)."""
    with jax.enable_x64(request.node.get_closest_marker("x32") is None):
        yield


@pytest.fixture
def two_devices():
    """Two devices of the default platform."""
    devices = jax.devices()
    if len(devices) < 2:
        if devices[0].platform == "cpu":
            pytest.fail("JAX made its CPU devices before tests/conftest.py could ask for two of them")
        pytest.skip(f"needs two devices, {devices[0].platform} has {len(devices)}")
    return devices[:2]
