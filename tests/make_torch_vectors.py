"""Write tests/data/torch.npz: layers of torch, with random parameters, applied to random inputs.

python -m tests.make_torch_vectors     # needs torch; the committed file was made with torch 2.13.0
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "data" / "torch.npz"

# By name: the class in torch, and its arguments. Inputs are (2, 4, *SHAPES[ndim]).
LAYERS: dict[str, tuple[str, dict]] = {
    "conv1d": ("Conv1d", {"out_channels": 3, "kernel_size": 4, "stride": 2, "padding": 3}),
    "conv1d-groups-dilation": ("Conv1d", {"out_channels": 6, "kernel_size": 3, "groups": 2, "dilation": 2}),
    "conv2d": ("Conv2d", {"out_channels": 3, "kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 1)}),
    "conv2d-depthwise": ("Conv2d", {"out_channels": 8, "kernel_size": (3, 2), "groups": 4, "bias": False}),
    "conv3d": ("Conv3d", {"out_channels": 2, "kernel_size": (1, 2, 3), "dilation": (1, 2, 1), "padding": 1}),
    "transposed1d": ("ConvTranspose1d", {"out_channels": 3, "kernel_size": 4, "stride": 3, "padding": 1}),
    "transposed2d": (
        "ConvTranspose2d",
        {"out_channels": 3, "kernel_size": (2, 3), "stride": 2, "padding": (0, 2), "output_padding": (1, 0)},
    ),
    "transposed3d-dilation": (
        "ConvTranspose3d",
        {"out_channels": 2, "kernel_size": (1, 2, 3), "stride": (2, 1, 1), "dilation": (1, 2, 1), "bias": False},
    ),
    "transposed1d-groups": (
        "ConvTranspose1d",
        {"out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    ),
    "transposed2d-groups-dilation": (
        "ConvTranspose2d",
        {
            "out_channels": 6,
            "kernel_size": (3, 2),
            "stride": (2, 1),
            "padding": (2, 0),
            "output_padding": (1, 2),
            "groups": 2,
            "dilation": (2, 3),
        },
    ),
    "transposed2d-depthwise": (
        "ConvTranspose2d",
        {"out_channels": 8, "kernel_size": 3, "stride": 3, "output_padding": (0, 2), "groups": 4, "bias": False},
    ),
    "transposed3d-groups": (
        "ConvTranspose3d",
        {
            "out_channels": 2,
            "kernel_size": (2, 1, 3),
            "stride": (1, 2, 2),
            "output_padding": (1, 0, 1),
            "groups": 2,
            "dilation": (2, 1, 1),
        },
    ),
}
# Applied to (2, 4, 3, 5), or to that with the channels last. The parameters are drawn: torch starts with ones.
NORMALISATIONS: dict[str, tuple[str, dict]] = {
    "batch-norm": ("BatchNorm2d", {"num_features": 4}),
    "group-norm": ("GroupNorm", {"num_groups": 2, "num_channels": 4, "eps": 1e-3}),
    "instance-norm": ("InstanceNorm2d", {"num_features": 4, "affine": True}),
    "layer-norm": ("LayerNorm", {"normalized_shape": 4, "bias": False}),
}
SHAPES = {1: (9,), 2: (6, 7), 3: (3, 5, 4)}


def compute(name: str) -> dict[str, np.ndarray]:
    """Return the parameters, the input and the result of a layer, in float64."""
    import torch

    kind, options = LAYERS[name]
    torch.manual_seed(sorted(LAYERS).index(name))
    layer = getattr(torch.nn, kind)(4, dtype=torch.float64, **options)
    x = torch.randn(2, 4, *SHAPES[int(kind[-2])], dtype=torch.float64)
    with torch.no_grad():
        parameters = {key: value.numpy() for key, value in layer.state_dict().items()}
        return {**parameters, "x": x.numpy(), "y": layer(x).numpy()}


def compute_normalisation(name: str) -> dict[str, np.ndarray]:
    """Return the parameters, the input and the result of a normalisation that is not training, in float64."""
    import torch

    kind, options = NORMALISATIONS[name]
    torch.manual_seed(100 + sorted(NORMALISATIONS).index(name))
    layer = getattr(torch.nn, kind)(dtype=torch.float64, **options).eval()
    with torch.no_grad():
        state = layer.state_dict()
        for key, value in state.items():
            if value.ndim:
                value.copy_(torch.rand(value.shape) + (key != "bias"))
        x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
        y = layer(x.movedim(1, -1)).movedim(-1, 1) if kind == "LayerNorm" else layer(x)
        return {**{key: value.numpy() for key, value in state.items()}, "x": x.numpy(), "y": y.numpy()}


if __name__ == "__main__":
    vectors = {name: compute(name) for name in LAYERS} | {name: compute_normalisation(name) for name in NORMALISATIONS}
    np.savez_compressed(FILE, **{f"{name}/{key}": value for name in vectors for key, value in vectors[name].items()})
