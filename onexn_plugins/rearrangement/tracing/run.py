"""The tracer's entry: a model and example inputs in, its channel spaces out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from onexn_plugins.inputs import keep_state, tensors_in
from onexn_plugins.rearrangement.branches import call_branches
from onexn_plugins.rearrangement.tracing import layers, movement, pointwise
from onexn_plugins.rearrangement.tracing.components import Found, spaces_from
from onexn_plugins.rearrangement.tracing.facts import Facts, frozen
from onexn_plugins.rearrangement.tracing.tracer import Tracer

RULE_MODULES = (layers, movement, pointwise)  # importing them registers their rules


def find_spaces(model: nn.Module, example_inputs: Any) -> Found:
    """Which channels of the model move together, found by one forward pass in eval mode.

    A second one follows where a branch, such as an auxiliary head, runs in training alone.

    The model's mode, buffers and the random state are as before afterwards; its hooks run.

    Raises:
        OneXNError: the model fails on example_inputs.
    """
    return spaces_from(trace(model, example_inputs))


def trace(model: nn.Module, example_inputs: Any) -> Facts:
    """What a forward pass says about the model's channels."""
    tracer = Tracer(model)
    for tensor in tensors_in(example_inputs):
        tracer.label(tensor, frozen(tensor.shape))
    with keep_state(model), torch.random.fork_rng(), _open_attention():
        model.eval()
        with tracer, _following(model, tracer):
            outputs, failure = call_branches(model, example_inputs)
    for tensor in tensors_in(outputs):
        tracer.facts.freeze(tracer.labels(tensor), "they are the model's output")
    tracer.facts.unseen = tracer.facts.unseen or failure
    return tracer.facts


@contextmanager
def _following(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """The tracer knows which module is running."""
    running: list[str] = []

    def enter(name: str) -> None:
        running.append(tracer.module)
        tracer.module = name

    def leave(*_: Any) -> None:
        tracer.module = running.pop()

    handles = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):  # inside these no hook is allowed
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _open_attention() -> Iterator[None]:
    """Without the fused attention functions, which would hide the layers inside them."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
