"""What can go wrong while training: killed processes, several processes, losses that are no numbers, full disks."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from onexn_plugins.cli.common import save_weights
from onexn_plugins.errors import OneXNError
from onexn_plugins.training import Method, train
from onexn_plugins.training.state import load_state
from tests.training.small import RECIPE, data, network

ROOT = Path(__file__).parents[2]
RUN = """
import dataclasses, sys, torch
from onexn_plugins.training import Blocks, start_fabric, train
from onexn_plugins.training.data.images import ImageData
from tests.training.small import RECIPE, images, network
torch.set_num_threads(1)
# 31 held-out images, 30 at a time in two processes: the last one is one process's alone
data = ImageData(images(), images({held_out}, augment_seed=None))
recipe = dataclasses.replace(RECIPE, eval_batch_size=15)
trained = train(network(norm={norm}), data, recipe, sys.argv[1], fabric=start_fabric(device="cpu"),
                method=Blocks(pruning_ratio=0.5, rearrange="swap"), save_seconds=0.0, log_steps=1)
"""


def start(folder: Path, *, norm: bool = True, ranks: int = 1, held_out: int = 31) -> subprocess.Popen[str]:
    script = folder.with_suffix(".py")
    script.write_text(RUN.format(norm=norm, held_out=held_out))
    launcher = [] if ranks == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port",
                                      "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return subprocess.Popen([sys.executable, *launcher, str(script), str(folder)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def end(folder: Path) -> dict[str, torch.Tensor]:
    return load_state(folder / "last.ckpt")["model"]


def test_killed_processes_end_with_the_same_bits(tmp_path):
    finish(start(tmp_path / "whole"))
    killed = 0
    state = tmp_path / "cut" / "last.ckpt"
    for done in (1, 9):  # killed as soon as so many steps are saved, whatever it is doing then
        process = start(tmp_path / "cut")
        while process.poll() is None and not (state.is_file() and _steps(state) >= done):
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed == 2
    finish(start(tmp_path / "cut"))
    whole, cut = end(tmp_path / "whole"), end(tmp_path / "cut")
    assert list(whole) == list(cut)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def _steps(state: Path) -> int:
    progress = load_state(state)["progress"]
    return progress["epoch"] * 7 + progress["batch"]


def test_two_processes_come_to_what_one_comes_to(tmp_path):
    """Without batch norm, whose statistics each process takes of its own images."""
    finish(start(tmp_path / "one", norm=False))
    finish(start(tmp_path / "two", norm=False, ranks=2))
    one, two = load_state(tmp_path / "one" / "last.ckpt"), load_state(tmp_path / "two" / "last.ckpt")
    for name, tensor in one["model"].items():
        torch.testing.assert_close(two["model"][name], tensor, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(one["progress"]["history"], two["progress"]["history"], strict=True):
        assert (mine["images"], theirs["images"]) == (31, 31), "every image is judged once"
        assert mine["top1"] == pytest.approx(theirs["top1"])
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert len(two["random"]) == 2


@pytest.mark.parametrize("held_out", [31, 1])
def test_a_process_without_held_out_images_waits_for_none(tmp_path, held_out):
    """Batch norms' buffers go from the first process to the others when the network runs after a training step."""
    finish(start(tmp_path / "two", ranks=2, held_out=held_out))
    history = load_state(tmp_path / "two" / "last.ckpt")["progress"]["history"]
    assert [entry["images"] for entry in history] == [held_out] * 3


class Poison(Method):
    """Makes a weight infinite before a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def prepare(self, model: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
        self._weight = model[0].weight  # type: ignore[index]
        return model

    def before_step(self, step: int, steps: int) -> None:
        if step == self._step:
            self._weight.data.fill_(float("inf"))


@pytest.mark.parametrize(("step", "named"), [(9, "step 10 (epoch 2)"), (2, "step 3 (epoch 1)")])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path, step, named):
    with pytest.raises(OneXNError) as caught:
        train(network(), data(), RECIPE, tmp_path, method=Poison(step))
    assert caught.value.layer == named
    state = tmp_path / "last.ckpt"
    assert state.is_file() == (step > 7)
    if state.is_file():
        assert str(state) in caught.value.fix
        assert all(torch.isfinite(value).all() for value in load_state(state)["model"].values())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    class Late(Poison):
        def before_update(self) -> None:
            if self._weight.grad is not None and self.armed:
                self._weight.grad.fill_(float("nan"))

        def before_step(self, step: int, steps: int) -> None:
            self.armed = step == 6  # the epoch's last step: its loss is still fine

    with pytest.raises(OneXNError, match="is not finite"):
        train(network(), data(), RECIPE, tmp_path, method=Late(0))
    assert not (tmp_path / "last.ckpt").exists()


class FullDisk(Method):
    """From a step on no file grows beyond what the log needs."""

    def settings(self) -> dict[str, object]:
        return Method().settings()

    def __init__(self, step: int) -> None:
        self._step = step

    def before_step(self, step: int, steps: int) -> None:
        if step == self._step:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))


def test_a_full_disk_keeps_the_state_before(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OneXNError, match=r"last.ckpt: cannot be written"):
            train(network(), data(), RECIPE, tmp_path, method=FullDisk(9), tensorboard=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(tmp_path / "last.ckpt")["progress"]["epoch"] == 1
    assert not list(tmp_path.glob(".last*"))
    assert len(train(network(), data(), RECIPE, tmp_path, method=Method()).history) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_disk_that_is_full_in_the_end_is_named(tmp_path, name):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        with pytest.raises(OneXNError, match=rf"{name}: cannot be written: .*File too large"):
            save_weights(network(), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path):
    (tmp_path / ".last.ckpt.abc").mkdir()
    (tmp_path / ".last.ckpt.abc" / "last.ckpt").write_bytes(b"half")
    train(network(), data(), dataclasses.replace(RECIPE, epochs=1), tmp_path)
    assert not list(tmp_path.glob(".last*"))


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_wrong_state_is_refused(tmp_path, content):
    state = tmp_path / "last.ckpt"
    if content is None:
        torch.save(network().state_dict(), state)
    else:
        state.write_bytes(content)
    with pytest.raises(OneXNError) as caught:
        train(network(), data(), RECIPE, tmp_path)
    assert caught.value.layer == str(state)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OneXNError) as caught:
        train(network(), data(), RECIPE, tmp_path / "file" / "run")
    assert str(tmp_path / "file") in caught.value.layer


def test_a_head_of_another_number_of_classes_is_refused(tmp_path):
    model = network()
    model[-1] = torch.nn.Linear(14, 5)
    with pytest.raises(OneXNError, match="the network has 5 outputs and the images 3 classes"):
        train(model, data(), RECIPE, tmp_path)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(OneXNError, match="61 is more than the 60 images"):
        train(network(), data(), dataclasses.replace(RECIPE, batch_size=61), tmp_path)
