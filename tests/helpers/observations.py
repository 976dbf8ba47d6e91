"""Tags whose probabilities are known."""

from __future__ import annotations

import numpy as np

from captioner.evaluation.calibration_fit import Observations

TRUE_WEIGHTS = np.array([-0.5, -0.7, 1.5, 0.8, 0.6, 1.0, -0.4, 0.9, -0.3])


def generated(images: int, seed: int = 0) -> tuple[Observations, np.ndarray]:
    """Tags whose probability is known: five for each image."""
    random = np.random.default_rng(seed)
    size = 5 * images
    said = random.uniform(0, 1, size) < 0.7
    mass, early = said * random.uniform(0, 1, (2, size))
    word, caption = said * random.normal(0, 1.5, (2, size))
    seen = random.normal(0, 1.5, size)
    parts = [np.ones(size), said, mass, word, caption, early, word * early, seen, said * seen]
    features = np.stack(parts, 1)
    probabilities = 1 / (1 + np.exp(-features @ TRUE_WEIGHTS))
    right = random.uniform(0, 1, size) < probabilities
    return Observations(features, right, np.arange(size) // 5, np.ones(size)), probabilities
