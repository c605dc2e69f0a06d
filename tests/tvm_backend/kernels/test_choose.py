"""The ordered table of kernel families: who serves what, and that asking costs nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common.requests import single, stage
from onexn_plugins.tvm_backend.kernels import request as requests
from onexn_plugins.tvm_backend.kernels.choose import FAMILIES, choose, kernel_map, kernel_of
from onexn_plugins.tvm_backend.kernels.family import CONV, Family
from onexn_plugins.tvm_backend.kernels.matrices import InstanceNorm, LayerNorm, MatMul, Matrices, Softmax, Transpose
from onexn_plugins.tvm_backend.kernels.problem import (
    Choice,
    Conv,
    Epilogue,
    GlobalPool,
    Kernel,
    Linear,
    Pool,
    Tile,
    Transposed,
    Unsupported,
)
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from tests.tvm_backend.kernels.differential import AVX2, AVX512, NEON, UNITS, conv, random_weight

ARCHITECTURE = Path(__file__).resolve().parents[3] / "ARCHITECTURE.md"


def layer(problem: Conv | Linear, unit=AVX512, kept: float = 0.5) -> Request:
    weight = random_weight(problem, 4, kept, np.random.default_rng(0))
    return single(problem, weight, np.zeros(weight.shape[0], np.float32), Epilogue(), unit, Tile(4, 2))


def _product(rows: int, inner: int, columns: int) -> MatMul:
    """Of two matrices each."""
    left, right, result = (Matrices((2, *size), (size[0] * size[1], size[1], 1)) for size in (
        (rows, inner), (inner, columns), (rows, columns)))
    return MatMul((2,), rows, inner, columns, left, right, result)


REQUESTS = {
    "conv 1×1": layer(Conv(1, 16, 14, 14, 16)),
    "conv 1×1, packed": layer(Conv(1, 64, 7, 7, 256), AVX2),
    "conv k×k": layer(Conv(1, 8, 14, 14, 16, (3, 3), (2, 2), (1, 1, 1, 1))),
    "conv k×k, sliced": layer(Conv(1, 64, 14, 14, 64, (3, 3), (2, 2), (1, 1, 1, 1)), AVX2, 1.0),
    "winograd": layer(Conv(1, 64, 28, 28, 64, (3, 3), (1, 1), (1, 1, 1, 1))),
    "transposed": layer(Transposed(1, 16, 8, 6, 16, (4, 4), (2, 2), (1, 1, 1, 1), size=(16, 12))),
    "linear": layer(Linear(1, 64, 64)),
    "linear over rows": layer(Linear(49, 64, 64)),
    "pool": Request((Stage(Pool("max", 1, 3, 8, 8, (2, 2))),), AVX512),
    "mean": Request((Stage(GlobalPool(1, 3, 8, 8)),), NEON),
    "matmul": Request((Stage(_product(3, 4, 5)),), AVX2),
    "attention": Request((Stage(_product(3, 4, 5)), Stage(Softmax((2, 3, 5))), Stage(_product(3, 5, 4))), NEON),
    "softmax": Request((Stage(Softmax((2, 3, 5))),), NEON),
    "layer norm": Request((Stage(LayerNorm((2, 5)), scale=np.ones(5, np.float32)),), AVX512),
    "instance norm": Request((Stage(InstanceNorm((2, 3, 5)), scale=np.ones(3, np.float32),
                                    shift=np.ones(3, np.float32)),), AVX2),
    "transpose": Request((Stage(Transpose((2, 3, 5), (2, 0, 1))),), AVX512),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_each_layer_has_its_family(name: str) -> None:
    assert choose(REQUESTS[name]).family.name == name


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.isa.name)
def test_deciding_encodes_and_emits_nothing(unit, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("not while deciding")

    monkeypatch.setattr(requests, "encode", refuse)
    for problem in (Conv(1, 64, 28, 28, 64), Conv(1, 8, 9, 9, 16, (3, 3)), Linear(3, 20, 30),
                    Transposed(1, 8, 9, 9, 16, (2, 2), (2, 2), size=(18, 18))):
        assert choose(layer(problem, unit)).family.chains


def test_a_layer_is_encoded_once_per_block_size(monkeypatch) -> None:
    sizes, encode = [], requests.encode

    def counted(values, block_size, groups, **options):
        sizes.append((block_size, options["keep_all"]))
        return encode(values, block_size, groups, **options)

    monkeypatch.setattr(requests, "encode", counted)
    request = layer(Conv(1, 16, 14, 14, 16))
    for tile in (Tile(4, 2), Tile(4, 3), Tile(8, 2)):
        kernel_of(request.with_choice(Choice(True, tile)))
    assert sizes == [(4, False), (8, False)]


def test_families_before_the_chosen_one_say_why_not() -> None:
    chosen = choose(REQUESTS["conv k×k"])
    asked = [family.name for family in FAMILIES if CONV in family.chains]
    assert [name for name, _ in chosen.refused] == asked[:asked.index("conv k×k")]
    assert all(reason and not reason.endswith(".") for _, reason in chosen.refused)


def test_what_no_family_computes_is_refused_with_the_chain() -> None:
    problem = Conv(1, 4, 8, 8, 4)
    first = layer(problem).first
    with pytest.raises(Unsupported, match=r"no kernel computes conv \+ conv together"):
        choose(Request((first, first), AVX512))
    with pytest.raises(Unsupported, match="belong"):
        choose(Request((stage(problem, np.ones((4, 3, 1, 1), np.float32), np.ones(4, np.float32), tile=Tile(4, 2)),),
                       AVX512))


def test_a_new_family_is_one_row() -> None:
    """The first family that fits serves: put before the others, it takes what it says it takes, and no more."""
    def build(request: Request) -> Kernel:
        kernel = conv(request.first.conv, request.first.array, request.first.bias, Epilogue(), request.unit)
        return Kernel(kernel.func, kernel.constants, "by a new family")

    small = Family("new", "for images of one row", (CONV,), lambda request: (
        None if request.first.conv.height == 1 else "more than one row"), build)
    families = (small, *FAMILIES)
    taken = choose(layer(Conv(1, 4, 1, 9, 8)), families)
    assert taken.family is small
    assert taken.family.build(layer(Conv(1, 4, 1, 9, 8))).method == "by a new family"
    left = choose(layer(Conv(1, 4, 2, 9, 8)), families)
    assert left.refused[0] == ("new", "more than one row")


def test_names_are_distinct_and_every_chain_has_a_family_for_the_rest() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for chain in {chain for family in FAMILIES for chain in family.chains} - {
            ("conv", "depthwise", "conv"), ("pool",), ("matmul", "softmax", "matmul"), ("matmul",), ("softmax",),
            ("layer norm",), ("instance norm",), ("transposed",)}:
        last = [family for family in FAMILIES if chain in family.chains][-1]
        assert last.name in ("pair, copied", "linear", "conv k×k", "conv k×k×k", "transposed", "depthwise",
                             "depthwise k×k×k", "mean", "transpose")


def test_the_documentation_has_the_map() -> None:
    """ARCHITECTURE.md shows the table as the code has it."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    shown = text.split("<!-- kernel table -->")[1].split("<!-- end -->")[0]
    rows = [tuple(cell.strip() for cell in line.strip("|\n ").split("|"))
            for line in shown.strip().splitlines() if re.match(r"\|(?!\s*(---|Family))", line)]
    assert rows == kernel_map()


@pytest.mark.parametrize(("first", "kept", "unit", "together"), [
    (Conv(1, 512, 14, 14, 512), 1.0, AVX2, False),
    (Conv(1, 256, 28, 28, 256), 0.25, AVX2, False),
    (Conv(1, 256, 28, 28, 256), 0.05, AVX2, True),  # few blocks are kept
    (Conv(1, 80, 14, 14, 480), 1.0, AVX2, True),  # the input is small
    (Conv(1, 512, 14, 14, 512), 1.0, AVX512, True),
], ids=str)
def test_a_large_input_is_copied_rather_than_read_for_every_block_row(first, kept, unit, together) -> None:
    second = Conv(1, first.out_channels, first.height, first.width, first.out_channels, (3, 3), (1, 1), (1, 1, 1, 1),
                  groups=first.out_channels)
    weights = np.ones(second.weight_shape, np.float32)
    request = Request((layer(first, unit, kept).first, stage(second, weights, weights[:, 0, 0, 0])), unit)
    if together:
        assert choose(request).family.name.startswith("pair")
        return
    with pytest.raises(Unsupported, match="better copied once"):
        choose(request)
    assert choose(Request(request.stages[:1], unit)).family.name == "conv 1×1, packed"
