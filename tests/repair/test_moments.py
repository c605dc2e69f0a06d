"""What a layer reads as the rows of a linear layer, on networks run in lockstep."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import out_first
from onexn_plugins.repair.lockstep import layer_of, runs
from onexn_plugins.repair.moments import SAMPLES, groups_of, outputs, samples, step_of

LAYERS = {
    "pointwise": (nn.Conv2d(6, 8, 1), (2, 6, 5, 7)),
    "strided": (nn.Conv2d(6, 8, 1, stride=2), (2, 6, 5, 7)),
    "3x3": (nn.Conv2d(6, 8, 3, padding=1), (2, 6, 5, 7)),
    "3x3, strided, dilated": (nn.Conv2d(6, 8, 3, stride=2, dilation=2, padding=2), (2, 6, 9, 9)),
    "rectangular": (nn.Conv2d(6, 8, (1, 5), padding=(0, 2)), (2, 6, 5, 7)),
    "same": (nn.Conv2d(6, 8, (5, 3), padding="same", dilation=2), (2, 6, 5, 7)),
    "valid": (nn.Conv2d(6, 8, 3, padding="valid"), (2, 6, 5, 7)),
    "reflecting": (nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), (2, 6, 5, 7)),
    "grouped": (nn.Conv2d(6, 8, 3, padding=1, groups=2), (2, 6, 5, 7)),
    "conv1d": (nn.Conv1d(6, 8, 3, padding=1, stride=2), (2, 6, 9)),
    "conv1d, grouped": (nn.Conv1d(6, 8, 5, groups=2), (2, 6, 9)),
    "transposed": (nn.ConvTranspose2d(6, 8, 2, stride=2), (2, 6, 3, 4)),
    "transposed, cut": (nn.ConvTranspose2d(6, 8, (4, 3), stride=(2, 3), padding=(1, 2), dilation=(1, 2)), (2, 6, 5, 4)),
    "transposed, grouped": (nn.ConvTranspose2d(6, 8, 3, 2, 1, output_padding=1, groups=2), (2, 6, 4, 5)),
    "transposed, 1×1": (nn.ConvTranspose2d(6, 8, 1, stride=2, padding=1), (2, 6, 4, 5)),
    "transposed 1d": (nn.ConvTranspose1d(6, 8, 5, stride=3, padding=1, output_padding=2, groups=2), (2, 6, 7)),
    "linear": (nn.Linear(6, 8), (4, 6)),
    "linear on tokens": (nn.Linear(6, 8), (2, 3, 6)),
}


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("case", LAYERS)
def test_samples_times_weight_are_the_outputs(case, step):
    layer, shape = LAYERS[case]
    layer = layer.double()
    batch = torch.randn(shape, dtype=torch.float64)
    with runs(layer, [batch], {"layer": layer.weight}) as (run,):
        assert layer_of([run]) == "layer"
        inputs = samples(run.call, layer.weight.detach(), step)
        targets = outputs(run.call, run.result(), step, torch.float64)
        rows = out_first(layer, layer.weight.detach()).flatten(1).unflatten(0, (groups_of(run.call), -1))
        bias = layer.bias.detach().unflatten(0, (groups_of(run.call), 1, -1))
        torch.testing.assert_close(inputs @ rows.mT + bias, targets)
        run.advance()
        torch.testing.assert_close(run.output, layer(batch))


@pytest.mark.parametrize("step", [1, 2, 4, 6])
def test_every_tap_of_a_transposed_layer_is_looked_at_however_few_positions_are(step):
    layer = nn.ConvTranspose2d(3, 4, (4, 3), stride=(2, 3))
    with runs(layer, [torch.rand(1, 3, 9, 9) + 1], {"layer": layer.weight}) as (run,):
        assert layer_of([run]) == "layer"
        assert bool((samples(run.call, layer.weight.detach(), step) != 0).any(1).all())


@pytest.mark.parametrize(("values", "refused"), [
    ((3e38, 3e38), False), ((float("inf"), float("-inf")), True), ((float("nan"), 0.0), True)])
def test_what_is_not_finite_is_told_from_what_only_adds_up_to_that(values, refused):
    layer, batch = nn.Linear(6, 2), torch.zeros(1, 6)
    batch[0, :2] = torch.tensor(values)
    with runs(layer, [batch], {"layer": layer.weight}) as (run,):
        if refused:
            with pytest.raises(OneXNError, match="infinite"):
                samples(run.call, layer.weight.detach())
        else:
            assert torch.equal(samples(run.call, layer.weight.detach())[0], batch)


def test_a_changed_layer_gives_its_new_outputs_and_the_next_one_sees_them():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    batches = [torch.randn(2, 3, 4, 4), torch.randn(1, 3, 4, 4)]
    with runs(net, batches, {"0": net[0].weight, "2": net[2].weight}) as group:
        assert layer_of(group) == "0"
        with torch.no_grad():
            net[0].weight.fill_(0.5)
        for run in group:
            run.advance()
        assert layer_of(group) == "2"
        for run, batch in zip(group, batches, strict=True):
            torch.testing.assert_close(run.call.inputs, F.relu(net[0](batch)))
            run.advance()
        assert layer_of(group) is None


def test_runs_that_are_left_end():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    with runs(net, [torch.randn(1, 3, 4, 4)] * 3, {"1": net[1].weight}) as group:
        assert all(run.is_alive() for run in group)
    assert not any(run.is_alive() for run in group)


def test_an_exception_of_the_forward_reaches_the_caller():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(5, 2, 1))
    with runs(net, [torch.randn(1, 3, 4, 4)], {"0": net[0].weight}) as group, pytest.raises(
            OneXNError, match="channels"):
        group[0].advance()


def test_a_layer_that_only_some_images_reach_is_named():
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.one(x) if x.sum() > 0 else self.two(x)

    net = Choosy()
    ones = torch.ones(1, 3, 2, 2)
    with runs(net, [ones, -ones], {"one": net.one.weight, "two": net.two.weight}) as group, pytest.raises(
            OneXNError, match="some images"):
        layer_of(group)


def test_how_densely_positions_are_looked_at():
    assert step_of((7, 7), 100, 2000) == 1
    assert step_of((56, 56), 1000, 2000) == 7
    assert step_of((56, 56), 1000, 9) == 14, "a narrow layer is content with fewer"
    assert step_of((), 10 * SAMPLES, 9) == 1, "an image is one sample where a layer reads [n, in]"
