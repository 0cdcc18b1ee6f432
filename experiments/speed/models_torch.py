"""The training steps of `experiments.speed.models` in torch on the CPU, channels-last, with the same parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

EPSILON = 1e-6  # of flax.nnx.GroupNorm
Parameters = dict[Any, Any]


class Program:
    """A step of gradient descent on a model of `jaxconv.nn`."""

    def __init__(self, name: str, params: Parameters, images: np.ndarray, target: np.ndarray, rate: float):
        self._forward = {"cnn": _cnn, "separable": _mobilenet, "unet": _unet}[name]
        self._leaves: list[torch.Tensor] = []
        self._params = self._converted(params)
        self._images = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        self._target = torch.tensor(target)
        if self._target.ndim == 4:
            self._target = self._target.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        self._rate = rate

    def _converted(self, params: Parameters, path: tuple[Any, ...] = ()) -> Parameters:
        found: Parameters = {}
        for name, value in params.items():
            if isinstance(value, dict):
                found[name] = self._converted(value, (*path, name))
                continue
            array = np.array(value)
            if array.ndim == 4 and "ups" in path:  # (*taps, in, out), of the dilated input
                array = array[::-1, ::-1].transpose(2, 3, 0, 1)
            elif array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            tensor = torch.tensor(np.ascontiguousarray(array))
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self._leaves.append(tensor.requires_grad_())
            found[name] = tensor
        return found

    def _gradients(self) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        result = self._forward(self._params, self._images)
        loss = F.mse_loss(result, self._target) if result.ndim == 4 else F.cross_entropy(result, self._target)
        return loss, torch.autograd.grad(loss, self._leaves)

    def step(self) -> None:
        """Move the parameters by a step."""
        _, gradients = self._gradients()
        with torch.no_grad():
            for leaf, gradient in zip(self._leaves, gradients, strict=True):
                leaf.sub_(gradient, alpha=self._rate)

    def losses(self) -> tuple[float, float]:
        """Return the loss before and after a step."""
        before = self._gradients()[0].item()
        self.step()
        return before, self._gradients()[0].item()


def _convolved(params: Parameters, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
    """Convolve with the padding "SAME", which puts the smaller half in front."""
    weight, pads = params["kernel"], []
    for size, taps in zip(reversed(x.shape[2:]), reversed(weight.shape[2:]), strict=True):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        pads += [total // 2, total - total // 2]
    even = pads[0::2] == pads[1::2]
    x, padding = (x, pads[2::-2]) if even else (F.pad(x, pads), 0)
    return F.conv2d(x, weight, params.get("bias"), stride, padding, 1, groups)


def _unit(params: Parameters, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
    x, norm = _convolved(params["conv"], x, stride, groups), params["norm"]
    return F.relu(F.group_norm(x, max(x.shape[1] // 8, 1), norm["scale"], norm["bias"], EPSILON))


def _cnn(params: Parameters, x: torch.Tensor) -> torch.Tensor:
    for conv in params["convs"].values():
        x = F.max_pool2d(F.relu(_convolved(conv, x)), 2)
    features = x.permute(0, 2, 3, 1).flatten(1)  # in the order of Flax
    return features @ params["head"]["kernel"] + params["head"]["bias"]


def _mobilenet(params: Parameters, x: torch.Tensor) -> torch.Tensor:
    x = _unit(params["stem"], x)
    for number, block in params["blocks"].items():
        stride = 2 if number in (2, 4) else 1
        x = _unit(block["pointwise"], _unit(block["depthwise"], x, stride, x.shape[1]))
    return x.mean((2, 3)) @ params["head"]["kernel"] + params["head"]["bias"]


def _unet(params: Parameters, images: torch.Tensor) -> torch.Tensor:
    def pair(part: Parameters, x: torch.Tensor) -> torch.Tensor:
        return _unit(part["second"], _unit(part["first"], x))

    x = pair(params["encoders"][0], images)
    skipped = []
    for level, down in params["downs"].items():
        skipped.append(x)
        x = pair(params["encoders"][level + 1], F.conv2d(x, down["kernel"], down["bias"], 2))
    for level in reversed(range(len(skipped))):
        up = params["ups"][level]
        x = F.conv_transpose2d(x, up["kernel"], up["bias"], 2)
        x = pair(params["decoders"][level], torch.cat([skipped[level], x], 1))
    return images + _convolved(params["head"], x)
