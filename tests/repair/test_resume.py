"""A repair that was interrupted goes on from its checkpoint to the same network."""

import copy

import pytest
import torch

from onexn_plugins import fold
from onexn_plugins.errors import OneXNError
from onexn_plugins.repair import repair
from onexn_plugins.repair import resume as resuming
from tests.repair.networks import photos, residual_net


@pytest.mark.parametrize("what", ["elimination: 4.project", "correction: 4.expand", "distillation"])
def test_going_on_gives_the_same_network(what, tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    monkeypatch.setattr("onexn_plugins.repair.distillation.STEPS_TIMED", 1)
    monkeypatch.setattr("onexn_plugins.repair.distillation._steps", lambda minutes, state: 6)
    path = tmp_path / "repair.safetensors"
    whole, stopped = residual_net(), residual_net()
    expected = repair(whole, photos(), distil_minutes=1)
    before = copy.deepcopy(stopped.state_dict())

    def stop(done, total, now):
        if now == what and (what != "distillation" or done == 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(stopped, photos(), distil_minutes=1, checkpoint=path, progress=stop)
    assert all(torch.equal(before[key], value) for key, value in stopped.state_dict().items())
    seen = []
    result = repair(stopped, photos(), distil_minutes=1, checkpoint=path,
                    progress=lambda done, total, now: seen.append((done, now)))
    assert [step.kl for step in result.steps] == pytest.approx([step.kl for step in expected.steps])
    assert result.ratios == expected.ratios
    for one, other in zip(fold(whole).state_dict().values(), fold(stopped).state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert not any(now.startswith("saliency") for _, now in seen)
    if what == "distillation":
        assert min(done for done, now in seen if now == "distillation") > 2


def test_the_checkpoint_of_another_repair_is_refused(tmp_path):
    path = tmp_path / "repair.safetensors"
    repair(residual_net(), photos(), checkpoint=path)
    with pytest.raises(OneXNError, match="another repair"):
        repair(residual_net(), photos(), checkpoint=path, pruning_ratio=0.25)
    with pytest.raises(OneXNError, match="another repair"):
        repair(residual_net(seed=1), photos(), checkpoint=path)
    with pytest.raises(OneXNError, match="other weights, images or settings"):
        repair(residual_net(), photos(seed=1), checkpoint=path)


def test_a_finished_repair_is_taken_from_its_checkpoint(tmp_path):
    path = tmp_path / "repair.safetensors"
    one, other = residual_net(), residual_net()
    expected = repair(one, photos(), checkpoint=path)
    result = repair(other, photos(), checkpoint=path)
    assert result == expected
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
