"""Write tests/data/keras.npz: layers of Keras, with random parameters, applied to random inputs.

python -m tests.make_keras_vectors     # needs keras; the committed file was made with Keras 3.15.1 on JAX 0.10.2
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "data" / "keras.npz"

# By name: the class in Keras, and its arguments. Inputs are (2, *SHAPES[ndim], 4).
LAYERS: dict[str, tuple[str, dict]] = {
    "conv1d-same": ("Conv1D", {"filters": 3, "kernel_size": 4, "strides": 2, "padding": "same"}),
    "conv1d-causal": ("Conv1D", {"filters": 3, "kernel_size": 3, "dilation_rate": 2, "padding": "causal"}),
    "conv2d-same": ("Conv2D", {"filters": 3, "kernel_size": (2, 3), "strides": (3, 2), "padding": "same"}),
    "conv2d-groups": ("Conv2D", {"filters": 6, "kernel_size": 3, "groups": 2}),
    "conv3d": ("Conv3D", {"filters": 2, "kernel_size": (1, 2, 3), "dilation_rate": (1, 2, 1), "use_bias": False}),
    "transposed1d-valid": ("Conv1DTranspose", {"filters": 3, "kernel_size": 4, "strides": 3}),
    "transposed1d-same": ("Conv1DTranspose", {"filters": 3, "kernel_size": 2, "strides": 3, "padding": "same"}),
    "transposed2d-same": ("Conv2DTranspose", {"filters": 3, "kernel_size": (2, 5), "strides": 2, "padding": "same"}),
    "transposed3d": ("Conv3DTranspose", {"filters": 2, "kernel_size": (1, 2, 3), "strides": (2, 1, 1)}),
    "depthwise1d": ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2}),
    "depthwise2d": ("DepthwiseConv2D", {"kernel_size": (2, 3), "depth_multiplier": 3}),
    "separable1d": ("SeparableConv1D", {"filters": 5, "kernel_size": 4, "depth_multiplier": 2, "padding": "same"}),
    "separable2d": (
        "SeparableConv2D",
        {"filters": 5, "kernel_size": (3, 2), "strides": 2, "padding": "same", "use_bias": False},
    ),
}
SHAPES = {1: (9,), 2: (6, 7), 3: (3, 5, 4)}


def dimensions(name: str) -> int:
    """Return the number of spatial axes of a layer."""
    return int(LAYERS[name][0].removesuffix("Transpose")[-2])


def compute(name: str) -> dict[str, np.ndarray]:
    """Return the parameters, the input and the result of a layer, in float64."""
    import keras

    kind, options = LAYERS[name]
    rng = np.random.default_rng(sorted(LAYERS).index(name))
    x = rng.normal(size=(2, *SHAPES[dimensions(name)], 4))
    layer = getattr(keras.layers, kind)(dtype="float64", **options)
    layer.build(x.shape)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    parameters = {weight.name: np.asarray(weight) for weight in layer.weights}
    return {**parameters, "x": x, "y": np.asarray(layer(x))}


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"], os.environ["JAX_ENABLE_X64"] = "jax", "1"
    np.savez_compressed(FILE, **{f"{name}/{key}": value for name in LAYERS for key, value in compute(name).items()})
