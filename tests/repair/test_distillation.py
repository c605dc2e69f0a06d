"""Distillation on networks that take one size alone, and when it cannot be done."""

import pytest
import torch
from torch import nn

from onexn_plugins.repair import distillation, repair
from tests.repair.networks import photos, residual_net


def one_size() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * 16 * 16, 6)).eval()


@pytest.fixture
def three_steps(monkeypatch):
    monkeypatch.setattr(distillation, "STEPS_TIMED", 1)
    monkeypatch.setattr(distillation, "_steps", lambda minutes, state: 3)


@pytest.mark.parametrize(("make", "side"), [(one_size, 64), (residual_net, 32)])
def test_crops_are_of_a_size_that_the_network_takes(make, side, three_steps):
    model, seen = make(), set()
    images = photos(8, side=64)
    with pytest.MonkeyPatch.context() as patch:
        train = distillation._train
        patch.setattr(distillation, "_train", lambda dense, pruned, batch, *rest: (
            seen.add(tuple(batch.shape[2:])), train(dense, pruned, batch, *rest)))
        result = repair(model, images, distil_minutes=1)
    assert result.steps[-1].name == "distillation"
    assert seen == {(side, side)}
    assert not any(note.startswith("not distilled") for note in result.notes)


def test_a_distillation_that_fails_leaves_the_repair(three_steps, monkeypatch):
    expected, model = residual_net(), residual_net()
    repair(expected, photos())

    def fails(*arguments):
        arguments[1][0].weight.data.zero_()  # half of a step
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(distillation, "_train", fails)
    result = repair(model, photos(), distil_minutes=1)
    assert "not distilled: step 1 fails: out of memory" in result.notes
    assert result.steps[-1].name != "distillation"
    assert all(torch.equal(one, other) for one, other in zip(
        model.state_dict().values(), expected.state_dict().values(), strict=True))
