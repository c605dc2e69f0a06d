"""Networks that run again, at once or on several threads keep to their own memory."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from onexn_plugins.tvm_backend import Compiled, compile_model, compile_module, load
from onexn_plugins.tvm_backend.kernels.parts import sharing
from onexn_plugins.tvm_backend.output import huge_pages, tvm_library
from onexn_plugins.tvm_backend.running import inputs as given_inputs
from tests.tvm_backend.comparing import compile_and_compare
from tests.tvm_backend.networks import Bottlenecks, Mobile, prune


def test_threads_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LAUNCH", 0)  # share kernels as small as these
    alone = compile_and_compare(prune(Mobile()), (torch.randn(1, 8, 14, 14),), tmp_path / "model.onnx")
    together = compile_model(tmp_path / "model.onnx", threads=3)
    together.save(tmp_path / "saved")
    x = np.random.default_rng(0).standard_normal((1, 8, 14, 14)).astype(np.float32)
    outputs = [together.run(x), load(tmp_path / "saved").run(x)]
    other = threading.Thread(target=lambda: outputs.append(together.run(x)))  # it needs workers of its own
    other.start()
    other.join()
    assert len(outputs) == 3
    assert all(np.array_equal(output, alone.run(x)) for output in outputs)


def test_several_networks_at_once_do_not_meet(tmp_path: Path) -> None:
    """Each has its own memory, whoever runs them."""
    model, image = prune(Mobile()), torch.randn(1, 8, 14, 14)
    first, second = compile_module(model, image), compile_module(prune(Mobile(), 8), image)
    loaded = load(first.save(tmp_path / "saved"))
    images = [np.random.default_rng(seed).standard_normal((1, 8, 14, 14)).astype(np.float32) for seed in range(8)]
    expected, other = ([network.run(value) for value in images] for network in (first, second))
    wrong: list[int] = []

    def run(network: Compiled, outputs: list[np.ndarray]) -> None:
        for _ in range(20):
            wrong.extend(place for place, value in enumerate(images)
                         if not np.array_equal(network.run(value), outputs[place]))

    pairs = [(first, expected), (first, expected), (second, other), (loaded, expected)]
    workers = [threading.Thread(target=run, args=pair) for pair in pairs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_its_memory_goes_with_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref] = []

    def allocate(nbytes: int) -> np.ndarray:
        memory = huge_pages.allocate(nbytes)
        alive.append(weakref.ref(memory.base))
        return memory

    monkeypatch.setattr(tvm_library, "allocate", allocate)
    monkeypatch.setattr(given_inputs, "allocate", allocate)
    image = np.random.default_rng(0).standard_normal((1, 8, 14, 14)).astype(np.float32)
    image.flags.writeable = False  # numpy does not lend it
    compiled = compile_module(prune(Mobile()), torch.from_numpy(image.copy()))
    loaded = load(compiled.save(tmp_path / "saved"))
    outputs = [network.run(image) for network in (compiled, loaded)]
    assert len(alive) == 4
    del compiled, loaded
    gc.collect()
    assert [memory for memory in alive if memory() is not None] == []
    assert np.array_equal(*outputs)  # outputs have memory of their own


def test_residuals_are_overwritten_and_every_run_gives_the_same(tmp_path: Path) -> None:
    x = torch.randn(2, 8, 7, 7)
    compiled = compile_and_compare(prune(Bottlenecks()), (x,), tmp_path / "model.onnx")
    first = compiled.run(x.numpy())
    before = first.copy()
    compiled.run(2 * x.numpy())
    assert np.array_equal(first, before), "what was returned is the caller's"
    assert np.array_equal(compiled.run(x.numpy()), before)
    hidden = 4 * 2 * 49 * 24
    assert compiled._network.memory.nbytes - compiled._network.weight_bytes < 3 * hidden
