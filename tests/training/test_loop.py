"""Training learns, keeps masks, and goes on where it was stopped to the same bits."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from onexn_plugins import fold, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.training import Blocks, Distilled, GradualBlocks, Method, Recipe, train
from onexn_plugins.training.data.images import ImageData
from onexn_plugins.training.log import read_lines
from onexn_plugins.training.recipe import SCHEDULES
from tests.training.small import RECIPE, data, images, network


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)


class StopError(Exception):
    """Stands for whatever ends a process."""


class StopsAt(Blocks):
    """Blocks that end the run before a step."""

    def __init__(self, step: int, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._step = step

    def before_step(self, step: int, steps: int) -> None:
        super().before_step(step, steps)
        if step == self._step:
            raise StopError

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "method": "Blocks"}


def test_training_learns_and_keeps_the_masks(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=12, lr=0.2)
    trained = train(network(), data(), recipe, tmp_path, method=Blocks(pruning_ratio=0.5))
    assert trained.accuracy.top1 > 0.9
    assert trained.accuracy.images == 31
    assert [entry["epoch"] for entry in trained.history] == list(range(1, 13))
    report = measure(fold(trained.model), 4)
    assert report.sparsity.blocks == pytest.approx(0.5, abs=0.01)
    assert not trained.model.training


@pytest.mark.parametrize("step", [1, 6, 7, 13, 20])
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, step):
    options = {"pruning_ratio": 0.5, "rearrange": "swap"}
    often = {"save_seconds": 0.0, "log_steps": 1}
    whole = train(network(), data(), RECIPE, tmp_path / "whole", method=Blocks(**options), **often)
    with pytest.raises(StopError):
        train(network(), data(), RECIPE, tmp_path / "cut", method=StopsAt(step, **options), **often)
    torch.rand(17)  # whatever happened between
    resumed = train(network(), data(), RECIPE, tmp_path / "cut", method=Blocks(**options), **often)
    assert same(whole.model, resumed.model)
    drop = {"seconds"}
    assert [{k: v for k, v in e.items() if k not in drop} for e in whole.history] == [
        {k: v for k, v in e.items() if k not in drop} for e in resumed.history]


def test_a_finished_run_is_read_not_repeated(tmp_path):
    first = train(network(), data(), RECIPE, tmp_path, method=Blocks())
    again = train(network(), data(), RECIPE, tmp_path, method=StopsAt(0))
    assert same(first.model, again.model)
    assert first.accuracy == again.accuracy


def test_a_network_with_auxiliary_heads_trains(tmp_path):
    class WithHeads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            outputs = self.network(images)
            return (outputs, outputs) if self.training else outputs

    assert len(train(WithHeads(), data(), RECIPE, tmp_path).history) == 3


def test_the_seed_decides(tmp_path):
    runs = [train(network(), data(), dataclasses.replace(RECIPE, seed=seed), tmp_path / str(number))
            for number, seed in enumerate((1, 1, 2))]
    assert same(runs[0].model, runs[1].model)
    assert not same(runs[0].model, runs[2].model)


def test_workers_change_nothing(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1)
    alone = train(network(), data(), recipe, tmp_path / "alone")
    helped = train(network(), data(), recipe, tmp_path / "helped", workers=2)
    assert same(alone.model, helped.model)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_goes_on_where_it_was(tmp_path, schedule):
    recipe = dataclasses.replace(RECIPE, schedule=schedule, warmup_epochs=0.0, decay_epochs=1)
    whole = train(network(), data(), recipe, tmp_path / "whole")
    with pytest.raises(StopError):
        train(network(), data(), recipe, tmp_path / "cut", method=StopsAt(9, pruning_ratio=0.0))
    resumed = train(network(), data(), recipe, tmp_path / "cut", method=Blocks(pruning_ratio=0.0))
    assert [entry["lr"] for entry in resumed.history] == [entry["lr"] for entry in whole.history]


def test_rates_of_the_schedules(tmp_path):
    def rates(**changes: object) -> list[float]:
        recipe = dataclasses.replace(RECIPE, epochs=4, warmup_epochs=0.0, **changes)
        folder = tmp_path / "-".join(map(str, changes.values()))
        return [entry["lr"] for entry in train(network(), data(), recipe, folder).history]

    assert rates(schedule="fixed") == [0.05] * 4
    assert rates(schedule="step", decay_epochs=2) == pytest.approx([0.05, 0.005, 0.005, 0.0005])
    assert rates(schedule="exp", decay_epochs=2) == pytest.approx([0.05 * 0.1 ** (e / 2) for e in (1, 2, 3, 4)])
    assert rates(schedule="cos") == pytest.approx([0.05 * f for f in (0.853553, 0.5, 0.146447, 0.0)], rel=1e-4)


def test_the_log_has_every_step_once_after_a_resume(tmp_path):
    with pytest.raises(StopError):
        train(network(), data(), RECIPE, tmp_path, method=StopsAt(11))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "steps", "st')  # a killed process leaves half a line
    train(network(), data(), RECIPE, tmp_path, method=Blocks())
    lines = read_lines(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines if line["event"] == "epoch"] == [7, 14, 21]
    assert [line["step"] for line in lines if line["event"] == "steps"] == [7, 14, 21]


def test_tensorboard_files_are_written_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    train(network(), data(), dataclasses.replace(RECIPE, epochs=1), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_other_precisions_learn_too(tmp_path, precision, dtype):
    recipe = dataclasses.replace(RECIPE, epochs=12, lr=0.2, precision=precision)
    trained = train(network(), data(), recipe, tmp_path)
    assert trained.accuracy.top1 > 0.8
    assert next(trained.model.parameters()).dtype == dtype


@pytest.mark.parametrize(("changes", "named"), [
    ({"epochs": 0}, "epochs"), ({"lr": -1.0}, "lr"), ({"lr": float("nan")}, "lr"), ({"batch_size": 2.5}, "batch_size"),
    ({"schedule": "linear"}, "schedule"), ({"precision": "8"}, "precision"), ({"warmup_epochs": 3}, "warmup_epochs"),
    ({"label_smoothing": 1.0}, "label_smoothing"), ({"momentum": 1.5}, "momentum"), ({"epochs": True}, "epochs"),
    ({"schedule": "onecycle"}, "warmup_epochs"),
])
def test_a_bad_setting_is_named(changes, named):
    with pytest.raises(OneXNError) as caught:
        dataclasses.replace(RECIPE, **changes)
    assert caught.value.layer == named


def test_defaults_are_a_recipe():
    assert Recipe(epochs=1).schedule == "cos"


def test_another_runs_folder_is_refused(tmp_path):
    train(network(), data(), RECIPE, tmp_path, method=Method())
    with pytest.raises(OneXNError, match=r"lr was 0\.05 and is 0\.1"):
        train(network(), data(), dataclasses.replace(RECIPE, lr=0.1), tmp_path)
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                                torch.nn.Linear(8, 3))
    with pytest.raises(OneXNError, match="of another network"):
        train(other, data(), RECIPE, tmp_path)


@pytest.mark.parametrize(("other", "named"), [
    (Blocks(pruning_ratio=0.75), r"pruning_ratio was 0\.5 and is 0\.75"),
    (Blocks(block_size=8), "block_size was 4 and is 8"),
    (Blocks(rearrange="sort"), "rearrange was 'none' and is 'sort'"),
    (Blocks(score="random"), "score was 'l1' and is 'random'"),
    (GradualBlocks(), "method was 'Blocks' and is 'GradualBlocks'"),
    (Distilled(Blocks(), weight=0.3), r"distillation was None and is 0\.3"),
    (Method(), "pruning_ratio was 0.5 and is None"),
])
def test_a_run_does_not_go_on_under_another_method(tmp_path, other, named):
    train(network(), data(), dataclasses.replace(RECIPE, epochs=1), tmp_path, method=Blocks())
    model = network()
    with pytest.raises(OneXNError, match=named):
        train(model, data(), dataclasses.replace(RECIPE, epochs=1), tmp_path, method=other)
    assert same(model, network()), "nothing was moved or masked"
    assert model.training


def test_a_run_does_not_go_on_with_other_images(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1)
    train(network(), data(), recipe, tmp_path)
    with pytest.raises(OneXNError, match="training images was 60 and is 40"):
        train(network(), ImageData(images(40), images(31, augment_seed=None)), recipe, tmp_path)
    with pytest.raises(OneXNError, match=r"shape was \[3, 8, 8\] and is \[3, 9, 9\]"):
        train(network(), ImageData(images(60, 9), images(31, 9, None)), recipe, tmp_path)


class Named(torch.nn.Module):
    """Gives a dict, as some toolkits' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.network(images)}


class Undefined(torch.nn.Module):
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return (scores - scores) / 0.0


@pytest.mark.parametrize(("make", "reason"), [
    (lambda: network().double(), "forward fails"), (Named, "gives dict, not one score per image and class"),
    (lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 3)), "forward fails"),
    (lambda: torch.nn.Conv2d(3, 3, 1), "not one score per image and class"),
    (lambda: torch.nn.Sequential(network(), Undefined()), "scores that are NaN or infinite"),
])
def test_a_network_that_is_no_classifier_of_these_images_is_refused(tmp_path, make, reason):
    model = make().train()
    with pytest.raises(OneXNError, match=reason):
        train(model, data(), RECIPE, tmp_path)
    assert all(module.training for module in model.modules())
