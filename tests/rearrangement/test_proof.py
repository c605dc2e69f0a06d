"""The proof: no mistake passes, one mistake does not spoil the rest, and the model stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.rearrangement import Move, Space, apply_moves, find_spaces, prove, rearrange
from onexn_plugins.rearrangement.proof import BAR
from tests.rearrangement.networks import Concat, Flattened, Grouped, Residual, Small, SqueezeExcite, build, pictures


def rotation(space: Space) -> torch.Tensor:
    """Every channel takes the place of the next one of its class."""
    order = torch.arange(space.channels)
    for each in space.classes.unique():
        places = (space.classes == each).nonzero().flatten()
        order[places] = places.roll(-1)
    return order


def moves_of(model: nn.Module) -> list[Move]:
    return [Move(space, rotation(space)) for space in find_spaces(model, pictures()).spaces]


def without(move: Move, left_out: int) -> Move:
    members = move.space.members
    return Move(Space(members[:left_out] + members[left_out + 1 :], move.space.classes), move.permutation)


@pytest.mark.parametrize("trained", [True, False], ids=["random", "fresh"])
@pytest.mark.parametrize("kind", [Grouped, Residual, Concat, SqueezeExcite, Flattened])
def test_a_space_that_misses_any_one_member_is_always_detected(kind, trained):
    """Fresh nets too, whose biases and running means are zero: on their own weights the mistake would not show."""
    model = build(kind) if trained else kind().eval()
    moves = moves_of(model)
    assert not prove(model, pictures(), moves).failed
    mutants = [without(move, left_out) for move in moves for left_out in range(len(move.space.members))]
    assert len(mutants) > 8
    for mutant in mutants:
        assert min(prove(model, pictures(), [mutant]).failed.values()) > 1000 * BAR


def test_channels_that_leave_their_group_are_detected():
    model = build(Grouped)
    space = next(each for each in find_spaces(model, pictures()).spaces if each.producers({"stem": model.stem}))
    order = torch.arange(space.channels)
    order[[0, -1]] = order[[-1, 0]]
    assert prove(model, pictures(), [Move(space, order)]).failed


@pytest.mark.parametrize("wrong", [0, 2, -1])
def test_bisection_isolates_the_wrong_space_and_keeps_the_rest(wrong):
    model = build(Concat)
    moves = moves_of(model)
    wrong %= len(moves)
    moves[wrong] = without(moves[wrong], 0)
    proof = prove(model, pictures(), moves)
    assert set(proof.failed) == {wrong}
    assert proof.passed == tuple(index for index in range(len(moves)) if index != wrong)
    assert proof.max_error < BAR


def test_several_wrong_spaces_are_isolated():
    model = build(Concat)
    moves = [without(move, 1) if index % 2 else move for index, move in enumerate(moves_of(model))]
    assert set(prove(model, pictures(), moves).failed) == set(range(1, len(moves), 2))


def test_rearrange_refuses_the_wrong_space_by_name_and_moves_the_others():
    model = build(Residual)
    spaces = list(find_spaces(model, pictures()).spaces)
    wrong = next(index for index, space in enumerate(spaces) if space.producers({"first": model.first}))
    spaces[wrong] = without(Move(spaces[wrong], rotation(spaces[wrong])), 1).space
    before = copy.deepcopy(model.state_dict())
    result = rearrange(model, pictures(), method="sort", block_size=2, spaces=spaces)
    assert [name for name, _ in result.refused] == ["first"]
    assert "changes the output" in result.refused[0][1]
    assert set(result.permutations) == {"stem", "second", "third", "head"}
    assert torch.allclose(model.first.weight.sum((1, 2, 3)), before["first.weight"].sum((1, 2, 3)), atol=1e-5)


def test_a_move_and_its_inverse_leave_every_bit():
    model = build(Grouped)
    before = copy.deepcopy(model.state_dict())
    moves = moves_of(model)
    apply_moves(model, moves)
    assert not torch.equal(model.grouped.weight, before["grouped.weight"])
    apply_moves(model, [move.inverse() for move in moves])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_keeps_everything_but_the_order_of_its_channels(dtype):
    model = build(Residual).to(dtype)
    model.train()
    model.norm.eval()
    model.stem.weight.requires_grad_(False)
    calls: list[str] = []
    handle = model.head.register_forward_hook(lambda *_: calls.append("hook"))
    parameters = {name: (parameter, parameter.data_ptr(), parameter.requires_grad, parameter.dtype, parameter.device)
                  for name, parameter in model.named_parameters()}
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    modes = {name: module.training for name, module in model.named_modules()}
    random_state, default_dtype = torch.get_rng_state(), torch.get_default_dtype()
    result = rearrange(model, pictures().to(dtype), method="sort", block_size=2)
    assert result.permutations
    assert calls == []
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_default_dtype() == default_dtype
    assert {name: module.training for name, module in model.named_modules()} == modes
    for name, parameter in model.named_parameters():
        was, address, requires_grad, its_dtype, device = parameters[name]
        assert parameter is was
        assert (parameter.data_ptr(), parameter.requires_grad) == (address, requires_grad)
        assert (parameter.dtype, parameter.device) == (its_dtype, device)
    for name, buffer in model.named_buffers():
        was, value = buffers[name]
        assert buffer is was
        assert torch.equal(buffer.flatten().sort().values, value.flatten().sort().values)
    model(pictures().to(dtype))
    assert calls == ["hook"]
    handle.remove()


def test_the_proof_itself_changes_nothing():
    model = build(Concat).train()
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    prove(model, pictures(), moves_of(model))
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_gradients_and_an_optimizer_made_before_go_along():
    model, reference = build(Residual), build(Residual)
    for each in (model, reference):
        each(pictures()).square().sum().backward()
    order = rearrange(model, pictures(), method="sort", block_size=2).permutations["stem"]
    assert torch.equal(model.stem.bias.grad, reference.stem.bias.grad[order])
    for each in (model, reference):
        torch.optim.SGD(each.parameters(), lr=1e-3).step()
    assert torch.allclose(model(pictures()), reference(pictures()), rtol=1e-4, atol=1e-5)


class Power(Small):
    """Its exponent is a buffer of one number, which no noise may change: the features are negative too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("exponent", torch.tensor(2.0))

    def between(self, features: torch.Tensor) -> torch.Tensor:
        return (features - 1.0).pow(self.exponent)


def test_a_constant_of_one_number_stays_as_it_is():
    model = Power().eval()
    moves = moves_of(model)
    assert prove(model, pictures(), moves).passed == tuple(range(len(moves)))
    assert prove(model, pictures(), [without(moves[0], 0)]).failed


class Rounded(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).argmax(1)


class Overflowing(Small):
    def between(self, features: torch.Tensor) -> torch.Tensor:
        return features / (features - features)


@pytest.mark.parametrize(("kind", "reason"), [(Rounded, "no floating-point values"), (Overflowing, "not finite")])
def test_what_cannot_be_compared_cannot_be_proved(kind, reason):
    model = build(kind)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(OneXNError, match=reason):
        rearrange(model, pictures(), method="sort")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
