"""What a layer's error does to the outputs of its network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Harm:
    """Divergence of the network's outputs against a layer's squared error, as far as it was measured.

    Attributes:
        errors: ascending, above 0.
        values: the divergence at each of them.
    """

    errors: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, errors: np.ndarray | float) -> np.ndarray:
        """At any errors: straight between what was measured, and from 0 to the first; behind the last as before it.

        It never falls: where a larger error was measured to do less, that is chance.
        """
        own, values = np.array([0.0, *self.errors]), np.maximum.accumulate([0.0, *self.values])
        wanted = np.asarray(errors, dtype=float)
        slope = (values[-1] - values[-2]) / max(own[-1] - own[-2], 1e-300)
        return np.where(wanted > own[-1], values[-1] + slope * (wanted - own[-1]), np.interp(wanted, own, values))
