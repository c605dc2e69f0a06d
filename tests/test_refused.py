"""The page of what is refused says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tvm")

from onnx import defs, helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model
from tests.tvm_backend.onnx_files import make_model

PAGE = (Path(__file__).parents[1] / "REFUSED.md").read_text(encoding="utf-8")
TABLE = PAGE.split("## ONNX operators")[1].split("\n\nOperators of other domains")[0]
ROWS = [line.split("|")[1] for line in TABLE.splitlines() if line.startswith("| `")]
LISTED = [name for row in ROWS for name in re.findall(r"`(\w+)`", row)]
# Operators of one tensor of numbers, which a small model can hold.
SMALL = {
    "NonZero": {}, "Unique": {}, "Bernoulli": {}, "RandomNormalLike": {}, "RandomUniformLike": {}, "Det": {},
    "Multinomial": {}, "BitCast": {"to": 6},
}


def test_every_listed_operator_is_one_of_the_standard() -> None:
    known = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    assert len(LISTED) > 20
    assert set(LISTED) <= known


def test_what_is_listed_is_not_computed() -> None:
    from onexn_plugins.tvm_backend.lowering.own import EMITTERS
    from onexn_plugins.tvm_backend.reading.expansion.table import RULES

    assert not set(LISTED) & (set(EMITTERS) | set(RULES))


@pytest.mark.parametrize("op", [op for op in SMALL if op in LISTED])
def test_a_listed_operator_is_refused_by_name(tmp_path: Path, op: str) -> None:
    opset = 26 if op == "BitCast" else 18
    if opset > defs.onnx_opset_version():
        pytest.skip(f"this onnx has no {op}")
    try:
        model = make_model([helper.make_node(op, ["x"], ["y"], **SMALL[op])], {"x": (2, 2)}, ["y"], opset=opset)
    except Exception as error:
        pytest.fail(f"the test's own model: {error}")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(OneXNError, match=f"^{op} 'y': ") as caught:
        compile_model(tmp_path / "model.onnx")
    assert caught.value.fix
    assert not re.search("TVM's|relax|Traceback|0x", str(caught.value))


def test_what_is_said_of_constants_holds(tmp_path: Path) -> None:
    nodes = [helper.make_node("HannWindow", ["size"], ["window"]), helper.make_node("Mul", ["x", "window"], ["y"])]
    model = make_model(nodes, {"x": (2, 8)}, ["y"], {"size": np.array(8)})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    x = np.ones((2, 8), np.float32)
    wanted = np.sin(np.pi * np.arange(8) / 8) ** 2
    np.testing.assert_allclose(compile_model(tmp_path / "model.onnx").run(x), [wanted, wanted], atol=1e-6)
