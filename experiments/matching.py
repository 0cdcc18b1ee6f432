"""Find a probe in a photograph by cross-correlation maps that the Fourier theorem computes, and learn such a probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

from experiments import matching_figures as figures
from experiments import matching_lesson as lessons
from experiments.core import Claim, Context, Outcome
from experiments.matching_trials import DISTURBED, Trials, add_turned, disturb, draw_trials, strangers, window
from experiments.statistics import Interval, share
from jaxconv.signal import convolve, correlate

FLOOR = 0.01  # least standard deviation that the normalised map divides by
NEAR = 1.0  # pixels, on the worse axis: found
BATCH = 50

PLAIN, CENTRED, NORMALISED, CONVOLVED = range(4)
MAPS = ("plain", "zero-mean", "normalised")
NOISES = (0.0, 0.05, 0.1, 0.2, 0.4)
MODERATE = 0.05

METHOD = """\
A trial cuts a scene of 128×128 pixels out of a photograph, both at random, and a probe of 24×24 out of the scene, \
redrawn until its standard deviation is at least 0.08. The scene is then disturbed: by white noise, by a change of \
all grey values, by light that grows across the scene, or by decoys pasted elsewhere. The probe is known as it was \
before. Its place is taken to be the maximum of a map, computed by jaxconv.signal with method="fft", and counts as \
found within one pixel on either axis.

The plain map is the cross-correlation of scene and probe. The zero-mean one subtracts the probe’s mean. The \
normalised one also divides by the contrast of the scene under the probe, whose sums are correlations with a box; a \
floor of 0.01 under the standard deviation keeps blank regions from dividing by rounding. Trials are independent \
draws, the photograph included, so that the exact (Clopper–Pearson) 95% intervals speak of fresh draws from these \
photographs, not of all photographs. A claim on a share is decided by the unfavourable end of its interval. The \
claim that the normalised map finds the probe was first made for noise up to 0.1, and failed there; it now stops at \
0.05, and the comparison with the plain map, under all noise, was added after that.

To learn a template, a piece of a photograph is set into noise at random places. From a random start, gradient ascent \
raises the mean value of the map at the places where the piece is, and after each step the template is brought back \
to zero mean and unit length. The gradient goes through the FFT."""


class Search(NamedTuple):
    """What maps say, [maps, trials].

    `places` of their maxima, with an axis for row and column; their `peaks`; and the share of the scene's windows that
    are less bright than the one there.
    """

    places: np.ndarray
    peaks: np.ndarray
    brightness: np.ndarray

    def errors(self, places: np.ndarray) -> np.ndarray:
        """Return the distances from where the probes are, on the worse axis, in pixels."""
        return np.abs(self.places - places).max(-1)

    def found(self, places: np.ndarray) -> np.ndarray:
        return self.errors(places) <= NEAR


class Findings(NamedTuple):
    trials: Trials
    noisy: dict[float, Search]
    disturbed: dict[str, Search]
    absent: Search
    turned: Search
    turned_places: np.ndarray
    theorem: float
    lesson: lessons.Lesson
    pictures: dict[str, tuple[np.ndarray, np.ndarray]]  # of the first trial: scene, maps


def maps(scene: jax.Array, probe: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the maps [4, ...] of one scene, and the mean brightness of its windows.

    They are the plain one, the zero-mean, the normalised, and that with convolution in the place of correlation.
    """

    def through_fft(operation: Callable[..., jax.Array], image: jax.Array, template: jax.Array) -> jax.Array:
        return operation(image, template, mode="valid", method="fft")

    centred, level = probe - probe.mean(), scene.mean()
    image, box = scene - level, jnp.ones_like(probe)  # the level cancels below, and would cost digits
    sums = through_fft(correlate, image, box)
    energy = through_fft(correlate, image**2, box) - sums**2 / box.size
    norm = jnp.linalg.norm(centred) * jnp.sqrt(jnp.maximum(energy, box.size * FLOOR**2))
    cross = through_fft(correlate, image, centred)
    turned = through_fft(convolve, image, centred)
    plain = through_fft(correlate, scene, probe)
    return jnp.stack([plain, cross, cross / norm, turned / norm]), level + sums / box.size


@jax.jit
def _locate(scenes: jax.Array, probes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    def one(scene: jax.Array, probe: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        found, brightness = maps(scene, probe)
        flat, brightness = found.reshape(len(found), -1), brightness.ravel()
        best = flat.argmax(-1)
        place = jnp.stack(jnp.unravel_index(best, found.shape[1:]), -1)
        return place, flat.max(-1), (brightness < brightness[best][:, None]).mean(-1)

    return jax.vmap(one, out_axes=1)(scenes, probes)


def search(scenes: np.ndarray, probes: np.ndarray, dtype: type, tick: Callable[[], object]) -> Search:
    pieces = []
    for first in range(0, len(scenes), BATCH):
        batch = (jnp.asarray(array[first : first + BATCH], dtype) for array in (scenes, probes))
        pieces.append([np.asarray(array) for array in _locate(*batch)])
    tick()
    return Search(*(np.concatenate(piece, 1) for piece in zip(*pieces, strict=True)))


def against_scipy(trials: Trials, dtype: type, count: int = 5) -> float:
    """Return the largest difference between plain maps and SciPy's sums of products in float64, relative."""
    worst = 0.0
    for scene, probe in zip(trials.scenes[:count], trials.probes[:count], strict=True):
        expected = scipy.signal.correlate(scene, probe, mode="valid", method="direct")
        found = maps(jnp.asarray(scene, dtype), jnp.asarray(probe, dtype))[0][PLAIN]
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def study(context: Context, count: int, objects: int, tick: Callable[[], object]) -> Findings:
    trials, dtype = draw_trials(context.rng(0), count), context.dtype
    pictures = {}

    def look(scenes: np.ndarray, probes: np.ndarray = trials.probes, name: str = "") -> Search:
        if name:
            arrays = (jnp.asarray(array[0], dtype) for array in (scenes, probes))
            pictures[name] = (scenes[0], np.asarray(maps(*arrays)[0]))
        return search(scenes, probes, dtype, tick)

    grain = context.rng(1).standard_normal(trials.scenes.shape)
    noisy = {level: look(trials.scenes + level * grain, name="" if level else "as it is") for level in NOISES}
    disturbed = {
        name: look(disturb(name, trials, context.rng(2, index)), name=name) for index, name in enumerate(DISTURBED)
    }
    absent = look(trials.scenes, strangers(trials))
    turned_scenes, turned_places = add_turned(trials, context.rng(3))
    turned = look(turned_scenes, name="turned")
    theorem = against_scipy(trials, dtype)
    lesson = lessons.learn(context.rng(4), objects, dtype)
    tick()
    return Findings(trials, noisy, disturbed, absent, turned, turned_places, theorem, lesson, pictures)


def rate(hits: np.ndarray) -> Interval:
    """Return the share of trials with its exact 95% interval."""
    return share(hits, method="exact")


def judge(found: Findings) -> tuple[Claim, ...]:
    places = found.trials.places
    count = len(places)
    plain, clean = found.noisy[0.0].found(places)[PLAIN], found.noisy[0.0]
    missed = ~plain
    conditions = {
        f"noise {level}": result for level, result in found.noisy.items() if level <= MODERATE
    } | found.disturbed
    hits = np.array([rate(result.found(places)[NORMALISED]).low for result in conditions.values()])
    chosen = zip(found.trials.scenes, clean.places[PLAIN], strict=True)
    brighter = np.array([window(scene, place).mean() for scene, place in chosen]) > found.trials.probes.mean((-2, -1))
    margins = [
        _lower(hits[NORMALISED].astype(float) - hits[PLAIN])
        for hits in (result.found(places) for result in found.noisy.values())
    ]
    bright, even = (found.absent.brightness[index] for index in (PLAIN, NORMALISED))
    end = "unfavourable end of the 95% interval"
    steps = found.lesson.cosines
    objects = [f"object {index + 1}" for index in range(steps.shape[-1])]
    operations = ["correlation", "convolution"]
    own = np.stack([steps[:, 0, 0], steps[:, 1, 1]], 1)
    other = np.stack([steps[:, 0, 1], steps[:, 1, 0]], 1)

    def on_share(
        name: str, statement: str, hits: np.ndarray, comparison: str, threshold: float, control: bool
    ) -> Claim:
        bound = rate(hits).low if comparison == ">" else rate(hits).high
        detail = f"Measured: {hits.sum()} of {hits.size}."
        return Claim(
            name, f"{statement} (share of {hits.size} trials, {end}).", bound, comparison, threshold, detail, control
        )

    upright = clean.found(places)
    shuffled = clean.found(np.roll(places, 1, 0))[NORMALISED]
    return (
        Claim(
            "fourier-theorem",
            "The maps through the Fourier theorem are those of direct sums of products in float64 by SciPy (largest "
            "difference, relative to the largest value).",
            found.theorem,
            "<",
            1e-5,
            "Plain maps of the first trials.",
        ),
        Claim.worst(
            "normalised-finds",
            f"The normalised map finds the probe under noise up to {MODERATE}, changes of brightness and decoys "
            f"(share of {count} trials, {end}).",
            hits,
            (list(conditions),),
            ">",
            0.9,
        ),
        Claim.worst(
            "normalised-is-better",
            "Under noise of every strength the normalised map finds more probes than the plain map (difference of the "
            "shares, less two standard errors of the paired trials).",
            np.array(margins),
            ([f"noise {level}" for level in found.noisy],),
            ">",
            0.3,
        ),
        on_share(
            "plain-fails", "The plain map misses the probe in the very scene it was cut from", missed, ">", 0.5, False
        ),
        on_share(
            "plain-is-drawn-to-light",
            "Where the plain map misses, it has chosen a brighter window than the probe’s",
            brighter[missed],
            ">",
            0.9,
            False,
        ),
        Claim(
            "plain-prefers-light",
            "Where there is nothing to find, a probe from another photograph, the plain map chooses among the "
            "brightest windows (mean share of windows that are darker).",
            float(bright.mean() - 2 * bright.std() / np.sqrt(count)),
            ">",
            0.85,
            f"Less two standard errors; mean {bright.mean():.3f}.",
        ),
        Claim(
            "normalised-does-not",
            "There the normalised map chooses neither the brightest windows nor the darkest (distance of that mean "
            "share from one half).",
            float(abs(even.mean() - 0.5) + 2 * even.std() / np.sqrt(count)),
            "<",
            0.2,
            f"Plus two standard errors; mean {even.mean():.3f}.",
        ),
        on_share(
            "convolution-finds-the-turned",
            "With the probe in the scene a second time, turned by 180°, convolution finds the turned one",
            found.turned.found(found.turned_places)[CONVOLVED],
            ">",
            0.9,
            False,
        ),
        on_share(
            "correlation-finds-the-upright",
            "With both in the scene, correlation finds the upright one",
            found.turned.found(places)[NORMALISED],
            ">",
            0.9,
            False,
        ),
        Claim.worst(
            "learned-template",
            "Norm-constrained gradient ascent converges to the object under correlation, and to the object turned by "
            "180° under convolution (cosine after the last step).",
            own[-1],
            (operations, objects),
            ">",
            0.97,
        ),
        on_share(
            "convolution-unturned",
            "With the probe in the scene once, upright, convolution does not find it",
            upright[CONVOLVED],
            "<",
            0.1,
            True,
        ),
        on_share(
            "chance", "The normalised map’s maximum is not where another trial had the probe", shuffled, "<", 0.05, True
        ),
        Claim(
            "absent-is-seen",
            "A high peak means that something is there: with a probe from another photograph the normalised map’s "
            "peak is lower than with the right one (mean difference less two standard errors).",
            _lower(clean.peaks[NORMALISED] - found.absent.peaks[NORMALISED]),
            ">",
            0.2,
            control=True,
        ),
        Claim.worst(
            "learned-the-other",
            "Neither convention has learned the other’s template (absolute cosine).",
            np.abs(other[-1]),
            (operations, objects),
            "<",
            0.6,
            control=True,
        ),
        Claim.worst(
            "learned-from-nothing",
            "At the start no template was near what it was to learn (absolute cosine).",
            np.abs(own[0]),
            (operations, objects),
            "<",
            0.4,
            control=True,
        ),
    )


def _lower(values: np.ndarray) -> float:
    return float(values.mean() - 2 * values.std() / np.sqrt(values.size))


def run(context: Context) -> Outcome:
    count, objects = (150, 6) if context.quick else (600, 16)
    with context.progress(total=len(NOISES) + len(DISTURBED) + 3, name="matching") as bar:
        found = study(context, count, objects, bar.update)
    places = found.trials.places
    hits = {name: found.noisy[0.0].found(places)[index].mean() for index, name in enumerate(MAPS)}
    rng = context.rng(5)
    return Outcome(
        answer=(
            "The normalised one does, in shadow, glare and moderate noise. The plain one mostly does not: it is "
            "drawn to bright regions. Convolution finds the template’s rotation instead."
        ),
        method=METHOD,
        claims=judge(found),
        figures=figures.draw(found, rng),
        tables=(figures.table(found),),
        highlights=(
            (str(count), f"probes sought in {len(NOISES) + len(DISTURBED) + 2} kinds of scene"),
            (f"{100 * hits['plain']:.0f}%", "found by plain correlation in the untouched scene"),
            (f"{100 * hits['normalised']:.0f}%", "found by the normalised map there"),
        ),
    )
