"""What `experiments.matching` searches: probes and scenes cut from photographs, and what is done to the scenes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments import data
from experiments.kernels import flip
from experiments.matching_lesson import CONTRAST, SQUARE

SCENE, PROBE = 128, 24  # sides of what is cut: from a square of a photograph, and from that
DISTURBED = ("darker, lighter shadows", "uneven light", "white squares", "glaring decoys")


class Trials(NamedTuple):
    """[trials, ...]: photograph's index, undisturbed scene, probe, and the place of its first pixel."""

    sources: np.ndarray
    scenes: np.ndarray
    probes: np.ndarray
    places: np.ndarray


def draw_trials(rng: np.random.Generator, count: int) -> Trials:
    names, drawn = list(data.PHOTOGRAPHS), []
    while len(drawn) < count:
        source = int(rng.integers(len(names)))
        square = data.photograph(names[source], SQUARE)
        top, left = rng.integers(SQUARE - SCENE + 1, size=2)
        scene = square[top : top + SCENE, left : left + SCENE]
        place = rng.integers(SCENE - PROBE + 1, size=2)
        probe = window(scene, place)
        if probe.std() >= CONTRAST:
            drawn.append((source, scene, probe, place))
    return Trials(*map(np.stack, zip(*drawn, strict=True)))


def window(scene: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return a view of what a probe covers there."""
    return scene[place[0] : place[0] + PROBE, place[1] : place[1] + PROBE]


def elsewhere(rng: np.random.Generator, taken: list[np.ndarray]) -> np.ndarray:
    """Return a random place where a probe overlaps none of those at `taken`."""
    while True:
        place = rng.integers(SCENE - PROBE + 1, size=2)
        if all(np.abs(place - other).max() >= PROBE for other in taken):
            return place


def disturb(name: str, trials: Trials, rng: np.random.Generator) -> np.ndarray:
    """Return the scenes, changed in one of the ways of `DISTURBED`."""
    scenes = trials.scenes.copy()
    for index, scene in enumerate(scenes):
        if name == "darker, lighter shadows":
            scene[:] = rng.uniform(0.2, 0.5) * scene + rng.uniform(0.2, 0.5)
        elif name == "uneven light":
            angle = rng.uniform(0, 2 * np.pi)
            y, x = (np.mgrid[:SCENE, :SCENE] - (SCENE - 1) / 2) / SCENE
            scene *= 1 + 0.9 * (np.cos(angle) * x + np.sin(angle) * y)
        else:
            taken = [trials.places[index]]
            for _ in range(3):
                taken.append(elsewhere(rng, taken))
                decoy = window(scene, taken[-1])
                # Half as strong again as a chessboard can be in [0, 1], and of the wrong pattern.
                stripes = np.where(rng.random((PROBE // 4, PROBE // 4)) < 0.5, 0.0, 1.5)
                decoy[:] = 1.0 if name == "white squares" else np.kron(stripes, np.ones((4, 4)))
    return scenes


def add_turned(trials: Trials, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paste each probe, turned by 180 degrees, into its scene a second time; return the scenes and those places."""
    scenes = trials.scenes.copy()
    places = np.stack([elsewhere(rng, [place]) for place in trials.places])
    for scene, probe, place in zip(scenes, trials.probes, places, strict=True):
        window(scene, place)[:] = flip(probe)
    return scenes, places


def strangers(trials: Trials) -> np.ndarray:
    """Return for each trial a probe out of another photograph."""
    count = len(trials.sources)
    chosen = []
    for index, source in enumerate(trials.sources):
        others = ((index + step) % count for step in range(1, count))
        chosen.append(next(other for other in others if trials.sources[other] != source))
    return trials.probes[np.array(chosen)]
