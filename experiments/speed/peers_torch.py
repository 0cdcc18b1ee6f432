"""Torch's ways on the CPU: its convolutions, and for the gradients the function that its autograd calls."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from experiments.speed.operations import Direction, Operation, Signal, multiply_adds, operand_names
from experiments.speed.peers import Way
from jaxconv._spec import Problem

Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def ways(operation: Operation, direction: Direction) -> list[Way]:
    """Return torch's ways; none for what its convolution cannot express."""
    if isinstance(operation, Signal) and operation.boundary != "fill":
        return []
    problem = operation.problem(np.dtype(np.float32))
    ndim = problem.spec.ndim
    convolution = None if ndim > 3 else _convolution(problem, operation.models or 1)
    if convolution is None:
        return []
    if operation.models is None:
        layouts = {"channels-first": torch.contiguous_format}
        if ndim > 1 and problem.groups * problem.in_channels > 1:
            layouts["channels-last"] = {2: torch.channels_last, 3: torch.channels_last_3d}[ndim]
        return [
            _way(operation, direction, f"conv{ndim}d, {name}", _directed(convolution, direction, form), form)
            for name, form in layouts.items()
        ]
    fn = _directed(convolution, direction, torch.contiguous_format)

    def each(first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
        return [fn(a, b) for a, b in zip(first, second, strict=True)]

    return [
        _way(operation, direction, f"func.vmap of conv{ndim}d", torch.func.vmap(fn), torch.contiguous_format),
        _way(operation, direction, f"conv{ndim}d for each model", each, torch.contiguous_format),
    ]


class _Convolution:
    """A convolution with torch's parameters: `aten.convolution` and its gradient, between steps of padding."""

    def __init__(self, groups: int, pads: Any, crops: Any, parameters: tuple, transposed: bool, shapes: dict):
        self.groups = groups
        self.pads = pads  # of the input, in the order of torch.nn.functional.pad; empty if none
        self.crops = crops  # of the input's gradient, which undo the padding
        self.transposed = transposed
        self.parameters = parameters
        self.shapes = shapes

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.pad(x, self.pads) if self.pads else x
        stride, padding, dilation, output_padding = self.parameters
        functions = torch.nn.functional
        ndim = len(stride)
        if self.transposed:
            fn = (functions.conv_transpose1d, functions.conv_transpose2d, functions.conv_transpose3d)[ndim - 1]
            return fn(x, w, None, stride, padding, output_padding, self.groups, dilation)
        fn = (functions.conv1d, functions.conv2d, functions.conv3d)[ndim - 1]
        return fn(x, w, None, stride, padding, dilation, self.groups)

    def gradient(self, ct: torch.Tensor, x: torch.Tensor, w: torch.Tensor, which: int) -> torch.Tensor:
        stride, padding, dilation, output_padding = self.parameters
        mask = [which == 0, which == 1, False]
        gradients = torch.ops.aten.convolution_backward(
            ct, x, w, None, stride, padding, dilation, self.transposed, output_padding, self.groups, mask
        )
        return gradients[which]

    # Of the operand whose gradient is asked for only shape and layout are looked at: untouched memory costs nothing.

    def input_gradient(self, form: torch.memory_format, ct: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = torch.empty(self.shapes["x"], dtype=ct.dtype, memory_format=form)
        return self.gradient(ct, x, w, 0)[self.crops]

    def kernel_gradient(self, form: torch.memory_format, x: torch.Tensor, ct: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.pad(x, self.pads) if self.pads else x
        w = torch.empty(self.shapes["w"], dtype=ct.dtype, memory_format=form)
        return self.gradient(ct, x, w, 1)


def _convolution(problem: Problem, models: int) -> _Convolution | None:
    """Translate a problem; None if torch cannot express it."""
    spec, groups = problem.spec, problem.groups // models
    ndim, channels, out = spec.ndim, groups * problem.in_channels, groups * problem.out_channels
    x_shape = [problem.batch, channels, *problem.input_shape]
    crops: tuple = (...,)
    pads: list[int] = []
    if any(d != 1 for d in spec.lhs_dilation):
        if any(s != 1 for s in spec.strides):
            return None
        reaches = [(k - 1) * d for k, d in zip(problem.kernel_shape, spec.rhs_dilation, strict=True)]
        padding = [reach - low for reach, (low, _) in zip(reaches, spec.padding, strict=True)]
        output_padding = [high - low for low, high in spec.padding]
        limits = [max(pair) for pair in zip(spec.lhs_dilation, spec.rhs_dilation, strict=True)]
        if min(padding) < 0 or not all(0 <= p < limit for p, limit in zip(output_padding, limits, strict=True)):
            return None
        parameters = (list(spec.lhs_dilation), padding, list(spec.rhs_dilation), output_padding)
        # Its kernel is stored by input channel: (channels, out / groups, *taps).
        w_shape = [channels, problem.out_channels, *problem.kernel_shape]
    else:
        padding = [low for low, _ in spec.padding]
        if any(low != high for low, high in spec.padding):
            pads = [number for pair in reversed(spec.padding) for number in pair]
            crops = (..., *(slice(low, low + n) for (low, _), n in zip(spec.padding, problem.input_shape, strict=True)))
            x_shape[2:] = [n + low + high for n, (low, high) in zip(problem.input_shape, spec.padding, strict=True)]
            padding = [0] * ndim
        if min(padding) < 0:
            return None
        parameters = (list(spec.strides), padding, list(spec.rhs_dilation), [0] * ndim)
        w_shape = [out, problem.in_channels, *problem.kernel_shape]
    transposed = any(d != 1 for d in spec.lhs_dilation)
    return _Convolution(groups, pads, crops, parameters, transposed, {"x": x_shape, "w": w_shape})


def _directed(convolution: _Convolution, direction: Direction, form: torch.memory_format) -> Function:
    if direction == "forward":
        return convolution.forward
    return functools.partial(convolution.input_gradient if direction == "input" else convolution.kernel_gradient, form)


def _way(operation: Operation, direction: Direction, name: str, fn: Any, form: torch.memory_format) -> Way:
    names = operand_names(direction)
    problem = operation.problem(np.dtype(np.float32))
    models = operation.models or 1
    groups = problem.groups // models
    transposed = any(d != 1 for d in problem.spec.lhs_dilation)
    # Torch correlates, and its transposed convolution convolves.
    flipped = transposed != (problem.spec.convention == "convolution")
    space = tuple(range(3, 3 + problem.spec.ndim))

    def ours_to_torch(kind: str, array: np.ndarray) -> torch.Tensor:
        array = operation.canonical(kind, array)
        if kind == "w":
            array = np.flip(array, space) if flipped else array
            array = array.swapaxes(1, 2) if transposed else array
            array = array.reshape(models, -1, *array.shape[2:])
        else:
            array = array.reshape(models, groups, *array.shape[1:]).swapaxes(1, 2)
            array = array.reshape(*array.shape[:2], -1, *array.shape[4:])
        tensor = _tensor(np.ascontiguousarray(array))
        return tensor if operation.models is not None else tensor[0].contiguous(memory_format=form)

    def torch_to_ours(value: Any) -> np.ndarray:
        if isinstance(value, list):
            value = torch.stack(value)
        array = _array(value if operation.models is not None else value[None])
        if names[2] == "w":
            array = array.reshape(models * groups, -1, *array.shape[2:])
            array = array.swapaxes(1, 2) if transposed else array
            return np.flip(array, space) if flipped else array
        array = array.reshape(models, array.shape[1], groups, -1, *array.shape[3:]).swapaxes(1, 2)
        return array.reshape(models * groups, *array.shape[2:])

    def run(first: torch.Tensor, second: torch.Tensor) -> Any:
        with torch.inference_mode():
            return fn(first, second)

    def prepare(first: np.ndarray, second: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return ours_to_torch(names[0], first), ours_to_torch(names[1], second)

    return Way("torch", name, run, prepare, torch_to_ours, multiply_adds=multiply_adds(operation))


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":  # which NumPy's arrays have from another package
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
