"""Grid search in an order that a stopped experiment can be read from: every pruner meets the others early.

NNI's own grid walks through all settings of the first pruner before it comes to the second. NNI loads this file by its
path, so that the tuner starts without torch: it imports nothing of the package.
"""

from __future__ import annotations

from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner
from nni.common.hpo_utils import ParameterSpec


class SpreadGridSearch(GridSearchTuner):
    """NNI's GridSearch, the same points; the values of the choice that names pruners take turns."""

    vector: list[int] | None

    def _next_vector(self) -> None:
        if self.vector is None:
            self._turns = self._epoch()
        self.vector = self._turns.pop(0) if self._turns else None

    def _epoch(self) -> list[list[int]]:
        """All points of the present grid, in turns."""
        points: list[list[int]] = []
        super()._next_vector()
        while self.vector is not None:
            points.append(list(self.vector))
            super()._next_vector()
        turning = turning_dimension(list(self.space.values()))
        seen: dict[int, int] = {}
        order = []
        for point in points:
            value = point[turning]
            seen[value] = seen.get(value, 0) + 1
            order.append((seen[value], value))
        return [point for _, point in sorted(zip(order, points, strict=True))]


def turning_dimension(specs: list[ParameterSpec]) -> int:
    """Where the search space chooses among named things, else its first choice, else its first parameter."""
    def named(spec: ParameterSpec) -> bool:
        return spec.type == "choice" and any(isinstance(value, dict) for value in spec.values)

    for wanted in (named, lambda spec: spec.key == ("pruner",), lambda spec: spec.categorical):
        for index, spec in enumerate(specs):
            if len(spec.key) == 1 and wanted(spec):
                return index
    return 0
