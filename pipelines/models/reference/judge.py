"""What judges pictures of digits: a classifier that has seen real digits only, and distances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import real_digits
from .latent import enlarge, reduce

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Judge:
    """A support vector classifier of 8x8 tile means.

    Attributes
    ----------
    model
        Fitted scikit-learn classifier.
    accuracy
        Share of the held-out real digits that it reads right.
    known
        (1437, 64) the real digits that the reference model learnt from.
    held_out
        (360, 64) the others.
    """

    model: Any
    accuracy: float
    known: Floats
    held_out: Floats

    def read(self, pictures: Floats) -> Ints:
        """Digits (N,) seen in pictures (N, 32, 32)."""
        return np.asarray(self.model.predict(_features(pictures)), np.int64)

    def novelty(self, pictures: Floats) -> float:
        """Median distance to the nearest known digit, in units of that of held-out real digits.

        About 1 where pictures are as new as real ones; 0 where they are copies.
        """
        real = np.median(self.nearest(self.held_out))
        return float(np.median(self.nearest(_features(pictures))) / real)

    def nearest(self, features: Floats) -> Floats:
        """Distance of each of ``(picture, feature)`` to the nearest real digit that was known."""
        squares = (features**2).sum(1)[:, None] + (self.known**2).sum(1)
        distances = squares - 2 * features @ self.known.T
        return np.asarray(np.sqrt(np.maximum(distances, 0).min(1)), np.float32)


@cache
def judge() -> Judge:
    """The judge, fitted once."""
    known, held_out = real_digits()
    from sklearn.svm import SVC

    features, unseen = _features(enlarge(known.ink)), _features(enlarge(held_out.ink))
    model = SVC(C=10.0).fit(features, known.label)
    accuracy = float(np.mean(model.predict(unseen) == held_out.label))
    return Judge(model, accuracy, features, unseen)


def _features(pictures: Floats) -> Floats:
    return reduce(pictures).reshape(len(pictures), -1)
