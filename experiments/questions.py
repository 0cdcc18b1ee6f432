"""What textbooks say of convolution and correlation, and which claims of which experiments put it to the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Question:
    """A sentence of the textbooks, and what is to be said of it once all claims on it hold.

    `experiments` are those that were made for it: their claims speak of it unless `claims` of another question names
    them. `claims` are single ones of other experiments, by experiment.
    """

    sentence: str
    verdict: str
    answer: str
    experiments: tuple[str, ...] = ()
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


QUESTIONS = (
    Question(
        "The layers of a network flip the weight matrix.",
        "No.",
        "They correlate. A layer that convolves learns the flipped kernel instead, and computes the same.",
        ("identification",),
    ),
    Question(
        "Convolution is associative and commutative, correlation is not.",
        "Yes.",
        "What correlations do, one after the other, is a correlation still: with the convolution of their kernels.",
        ("algebra",),
    ),
    Question(
        "Convolution becomes a product in the frequency domain.",
        "Yes.",
        "So does correlation, with the filter’s spectrum at the negated frequency.",
        ("fourier",),
    ),
    Question(
        "Each output is the Frobenius inner product of filter and patch, the trace of a matrix product.",
        "Yes.",
        "And a layer is one matrix, whose transpose is a layer of the other convention.",
        ("frobenius",),
    ),
    Question(
        "For a symmetric filter, convolution and correlation agree.",
        "Yes.",
        "In what they compute and in what they learn. An asymmetric filter tells them apart.",
        claims={
            "identification": ("symmetric-kernels", "antisymmetric-kernels", "layers-symmetric-kernels"),
            "algebra": ("even-signals",),
            "frobenius": ("symmetric-kernels",),
            "blur": (
                "symmetric-same-picture",
                "asymmetric-other-picture",
                "symmetric-same-kernel",
                "asymmetric-other-kernel",
            ),
            "students": ("symmetric-teacher",),
            "deblur": ("wiener-symmetric", "symmetric-unflipped"),
        },
    ),
    Question(
        "A 5×5 Gaussian kernel smooths the edges of a face.",
        "Yes.",
        "Under either convention, and either learns the kernel back from the picture.",
        ("blur",),
    ),
    Question(
        "A cross-correlation map tells where a probe sits in a picture.",
        "In part.",
        "The normalised map does. The plain one is drawn to light, and convolution finds the probe’s rotation.",
        ("matching",),
    ),
    Question(
        "A network learns a task with either, and its filters are the other’s, rotated.",
        "Yes.",
        "Step by step from flipped starts; from independent starts, where the task settles what the filters are.",
        ("twins", "students", "ensembles"),
        {
            "deblur": (
                "wiener-flipped-pairs",
                "wiener-unflipped",
                "lucy-flipped-pairs",
                "unflipped-fails",
                "flipped-works",
            )
        },
    ),
    Question(
        "The flip exists for commutativity, which proofs need and networks do not.",
        "Yes.",
        "Trained without it, layers do the same work.",
        ("deblur",),
        {"algebra": ("stacks-learn", "stack-is-one-layer", "not-their-correlation")},
    ),
)


def of(experiment: str, claim: str) -> int | None:
    """Return the number, from 1, of the question that a claim speaks of; None if its experiment was made for none."""
    single = [n for n, question in enumerate(QUESTIONS, 1) if claim in question.claims.get(experiment, ())]
    return (single or [n for n, question in enumerate(QUESTIONS, 1) if experiment in question.experiments] or [None])[0]


def rank(experiment: str) -> int:
    """Return the number of the question that an experiment was made for; those that were made for none come last."""
    return of(experiment, "") or len(QUESTIONS) + 1
