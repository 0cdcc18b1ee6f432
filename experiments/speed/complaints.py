"""Shapes that people asked for in public trackers, and could not have at a bearable speed.

The shapes are those of the reports, or smaller ones of the same kind where the slowest way would take more than some
seconds ("8 of 64 channels"); where a report states no shape, it says "shape ours". The letters are kinds: A one channel
or large kernels, B depthwise and grouped, C transposed and strided, D vmapped, E dtypes, F Fourier transforms.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.speed.cases import Case
from experiments.speed.operations import Direction, Layer, Operation, Signal, transposed

FORWARD: tuple[Direction, ...] = ("forward",)
KERNEL: tuple[Direction, ...] = ("kernel",)
BOTH = ("float32", "float64")
DOUBLE = ("float64",)


def complaints() -> list[Case]:
    """Return the cases from public trackers."""
    # Here the slow ways are the point: some seconds are borne.
    return [dataclasses.replace(case, source="complaint", patience=5.0) for case in (*_signals(), *_layers())]


def _case(name: str, issue: str, group: str, operation: Operation, what: str, **options: Any) -> Case:
    return Case(name, group, operation, what, issue, **options)


def _line(batch: int, length: int, channels: int, out: int, taps: int, **options: Any) -> Layer:
    return Layer(batch, (length,), channels, out, (taps,), **options)


# Tables, one case to a line or two.
# fmt: off

def _signals() -> list[Case]:
    return [
        _case("a1", "jax-ml/jax#5227", "2-D", Signal((300, 300), (300, 300), "same"),
              "an array with itself", dtypes=DOUBLE),
        _case("a2", "jax-ml/jax#25461", "2-D", Signal((530, 1430), (30, 30), "valid", batch=5),
              "frames under one kernel, vmapped; 5 of 100 frames", quick=True),
        _case("a4", "lanl/scico#439", "2-D", Signal((192, 192), (192, 192)),
              "image and point spread function; a fifteenth of each side"),
        _case("a6", "jax-ml/jax#7284", "2-D", Signal((512, 512), (25, 1), "same"),
              "one pass of a Gaussian; shape ours"),
        _case("a7", "HajimeKawahara/exojax#348", "1-D", Signal((100_000,), (1001,), "same"),
              "instrumental profile; shape ours", dtypes=DOUBLE),
        _case("a8", "flatironinstitute/nemos#588", "1-D", Signal((998_995,), (1009,)),
              "spike train; the result has the prime length 1,000,003", dtypes=BOTH),
        _case("a9", "PyAutoLabs/PyAutoArray#166", "2-D", Signal((512, 512), (21, 21), "same"),
              "image and point spread function; shape ours", dtypes=DOUBLE),
        _case("a11", "pytorch/audio#2469", "1-D", Signal((262_144,), (16_384,)),
              "room impulse response; a twelfth of its length", quick=True),
        _case("a12", "pytorch/vision#7413", "2-D", Signal((2048, 2048), (131, 1), "same"),
              "one pass of a wide Gaussian; an eighth of each side"),
        _case("a13", "pytorch/pytorch#126115", "2-D", Signal((1080, 1920), (3, 3), "same"), "Laplacian; shape ours"),
        _case("a14", "kornia/kornia#4641", "2-D", Signal((512, 512), (31, 1), "same"), "one pass of a Gaussian"),
        _case("a15-short", "scipy/scipy#5280", "1-D", Signal((232_523,), (5,)), "five taps", dtypes=DOUBLE, quick=True),
        _case("a15-image", "scipy/scipy#8154", "2-D", Signal((1500, 1000), (25, 25), "same"), "a quarter of each side"),
        _case("a15-axis", "scipy/scipy#17080", "1-D", Signal((10_000,), (64,), batch=64),
              "a filter along one axis; shape ours"),
        _case("a16-1664", "scipy/scipy#16802", "1-D", Signal((1664,), (65,)), "a short signal", dtypes=DOUBLE),
        _case("a16-2816", "scipy/scipy#16802", "1-D", Signal((2816,), (65,)), "a short signal", dtypes=DOUBLE),
        _case("a17", "ASEM000/kernex#2", "2-D", Signal((2048, 2048), (3, 1), "same"), "a stencil", dtypes=BOTH),
        _case("a18", "jax-ml/jax#7276", "2-D", Signal((512, 512), (5, 5), "same", boundary="wrap"),
              "periodic boundary; shape ours", directions=FORWARD, quick=True),
        _case("e1", "jax-ml/jax#10128", "1-D", Signal((100_000,), (5,)), "integers; 1,000 times as many",
              directions=FORWARD, dtypes=("int32",)),
        _case("f1", "jax-ml/jax#39081", "2-D", Signal((288, 288), (288, 288), "same", batch=4),
              "complex images; 4 of 16, half of each side", directions=FORWARD, dtypes=("complex64",)),
        _case("f10", "scipy/scipy#5986", "1-D", Signal((2_000_000,), (2_000_000,)),
              "two vectors of equal length, a fifth of theirs", directions=FORWARD, dtypes=DOUBLE),
    ]


def _layers() -> list[Case]:
    return [
        _case("a5", "google-deepmind/dm_pix#46", "depthwise", Layer(1, (512, 512), 3, 3, (31, 1), groups=3),
              "one pass of a Gaussian; shape ours"),
        _case("a8-neurons", "flatironinstitute/nemos#345", "dense",
              _line(50, 10_000, 1, 8, 100, padding=((0, 0),), channels_last=False, method="auto"),
              "8 basis functions, FFT allowed; 50 of 200 neurons, length ours", directions=FORWARD),
        _case("a10", "pytorch/pytorch#21462", "dense",
              _line(1, 16_000, 8, 8, 1024, channels_last=False, method="auto"),
              "a long kernel, FFT allowed; 8 of 64 channels, a quarter of the length"),
        _case("a14-image", "kornia/kornia#355", "depthwise",
              Layer(1, (224, 224), 3, 3, (9, 9), groups=3, channels_last=False), "image filter; shape ours"),
        _case("b1-line", "jax-ml/jax#23713", "depthwise", _line(124, 124, 256, 256, 3, groups=256),
              "kernel_size=3 as Flax reads it: one axis"),
        _case("b1-image", "jax-ml/jax#23713", "depthwise", Layer(1, (124, 124), 256, 256, (3, 3), groups=256),
              "kernel_size=3 as torch reads it"),
        _case("b2", "patrick-kidger/equinox#970", "depthwise",
              Layer(1, (124, 124), 512, 512, (3, 3), groups=512, channels_last=False), "channels first", quick=True),
        _case("b4", "jax-ml/jax#13800", "depthwise", _line(4, 1024, 512, 512, 5, groups=512, channels_last=False),
              "the slow gradient; 4 of 32 in the batch", quick=True),
        _case("b5-near", "jax-ml/jax#26266", "depthwise", _line(8, 1024, 64, 64, 7, rhs_dilation=(2,), groups=64),
              "dilated by 2; channels ours"),
        _case("b5-far", "jax-ml/jax#26266", "depthwise", _line(8, 1024, 64, 64, 7, rhs_dilation=(64,), groups=64),
              "dilated by 64; channels ours"),
        _case("b5-dense", "jax-ml/jax#26266", "dilated", _line(8, 1024, 64, 64, 3, rhs_dilation=(2,)),
              "not depthwise; channels ours"),
        _case("b6-image", "pytorch/pytorch#13716", "depthwise",
              Layer(1, (56, 56), 256, 256, (3, 3), groups=256, channels_last=False), "256 channels; size ours"),
        _case("b6-groups", "pytorch/pytorch#70954", "grouped",
              Layer(2, (112, 112), 32, 32, (3, 3), groups=4, channels_last=False),
              "an eighth of the batch, half of each side; channels ours"),
        _case("b6-short", "pytorch/pytorch#192902", "depthwise",
              _line(1, 2048, 2048, 2048, 4, groups=2048, padding=((3, 0),), channels_last=False),
              "4 taps, causal; a sixth of the channels, an eighth of the length"),
        _case("b6-pointwise", "keras-team/keras#20471", "grouped", Layer(4, (32, 32), 512, 128, (1, 1), groups=2),
              "1×1 in two groups; an eighth of the batch, half of each side"),
        _case("c1", "jax-ml/jax#23783", "transposed",
              _line(8, 256, 64, 64, 8, padding=transposed((8,), (2,)), lhs_dilation=(4,), channels_last=False),
              "shape ours"),
        _case("c2", "jax-ml/jax#17464", "transposed",
              Layer(1, (8, 8), 16, 8, (32, 32), padding=transposed((32, 32), (8, 8)), lhs_dilation=(16, 16)),
              "32×32 taps; an eighth of the channels, a quarter of the filters", quick=True),
        _case("c3", "jax-ml/jax#31662", "transposed",
              Layer(1, (64, 64, 32), 64, 1, (3, 3, 3), padding=transposed((3, 3, 3), (1, 1, 1), (1, 1, 1)),
                    lhs_dilation=(2, 2, 2), channels_last=False), "volumes"),
        _case("c4", "jax-ml/jax#23085", "strided",
              Layer(1, (224, 224), 3, 64, (16, 16), strides=(16, 16), padding=((0, 0), (0, 0))),
              "patches of a vision transformer; 64 of 768 filters", quick=True),
        _case("c7", "patrick-kidger/equinox#1041", "dense",
              Layer(1, (64, 64, 64), 4, 4, (3, 3, 3), channels_last=False), "volumes; a quarter of each side"),
        _case("c7-spread", "tensorflow/tensorflow#19611", "dense",
              Layer(200, (1, 1, 1), 50, 1, (28, 28, 1), padding=((27, 27), (27, 27), (0, 0))),
              "one sample meets every tap: a product of matrices"),
        _case("c7-synthesis", "apache/tvm#6840", "transposed",
              _line(1, 128, 257, 1, 512, padding=transposed((512,), (0,)), lhs_dilation=(128,), channels_last=False),
              "overlapping windows"),
        _case("c8", "danijar/dreamerv3#126", "dense",
              Layer(32, (67, 67), 16, 32, (5, 5), padding=((0, 0), (0, 0))),
              "the slow filter gradient; 32 of 1024 in the batch"),
        _case("d2", "jax-ml/jax#1606", "per-sample", Layer(8, (4, 4), 1, 1, (2, 2), models=300),
              "300 samples with 8 symmetric copies of each", directions=KERNEL, dtypes=DOUBLE),
        _case("d4", "jax-ml/jax#26568", "models", _line(1024, 32, 3, 64, 3, models=10),
              "kernel_size=3 as Flax reads it; an eighth of the batch", quick=True),
        _case("d5", "jax-ml/jax#3428", "models", Layer(1, (2, 3), 1, 1, (2, 3), models=256),
              "one filter for each of 256 samples", dtypes=DOUBLE),
        _case("d9", "patrick-kidger/equinox#667", "dense", Layer(1, (28, 28), 1, 3, (4, 4), channels_last=False),
              "tiny, where calls dominate"),
        _case("e2", "jax-ml/jax#7637", "dense", Layer(2, (128, 128), 4, 64, (3, 3), channels_last=False),
              "int8; a quarter of the batch, half of each side", directions=FORWARD, dtypes=("int8",)),
        _case("e3", "jax-ml/jax#3706", "dense", Layer(1, (200, 198), 3, 3, (3, 3)), "complex", dtypes=("complex64",)),
        _case("e5", "jax-ml/jax#11143", "dense", _line(1, 512, 512, 512, 3),
              "half precision; a sixteenth of the batch, a quarter of the channels", dtypes=("bfloat16", "float16")),
        _case("e7", "pytorch/pytorch#83382", "dense", Layer(1, (176, 320), 16, 16, (1, 1), channels_last=False),
              "half precision, 1×1", directions=FORWARD, dtypes=("float16",)),
        _case("e8", "ROCm/jax#352", "dense", Layer(1, (8, 8), 1, 4, (3, 3)), "float64", dtypes=DOUBLE),
        _case("f8", "google-deepmind/dm_aux#4", "strided",
              _line(4, 16_384, 1, 256, 256, strides=(128,), padding=((0, 0),)),
              "spectrogram by convolution; an eighth of the window, shape ours"),
    ]
