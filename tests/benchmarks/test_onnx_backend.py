"""A slice of `python -m benchmarks.onnx_backend`: one small test of each operator that networks are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.onnx_backend.cases import Case, cases
from benchmarks.onnx_backend.judge import _fault, judge

OPERATORS = ("BatchNormalization", "Clip", "DepthToSpace", "IsInf", "MaxPool", "Relu", "RoiAlign", "Shape", "Tile")


def of(operator: str) -> list[Case]:
    return [case for case in cases() if case.operator == operator]


@pytest.mark.parametrize("operator", OPERATORS)
def test_right(tmp_path: Path, operator: str) -> None:
    outcomes = {case.name: judge(case, tmp_path) for case in of(operator)[:3]}
    assert outcomes
    assert all(outcome.startswith("right") for outcome in outcomes.values()), outcomes


def test_other_values_types_and_shapes_are_faults(tmp_path: Path) -> None:
    case = of("Relu")[0]
    ((inputs, (output,)),) = case.data
    for expected in (output + 1, output.astype(np.float64), output[None]):
        assert _fault([output], [expected], case)
    assert not _fault([output], [output], case)
    altered = Case(case.name, case.operator, case.model, [(inputs, [output + np.float32(1)])], case.rtol, case.atol)
    assert judge(altered, tmp_path).startswith("disputed"), "onnxruntime computes what we do"
