"""What an error in each output channel of a layer means to what the network gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.errors import first_line
from onexn_plugins.inputs import keep_state, tensors_in
from onexn_plugins.repair.divergence import is_classes
from onexn_plugins.repair.images import Images

FLOOR = 1e-4  # of a layer's mean: no channel is worth nothing, on a few images it may only look so
IMAGES = 64  # that it is measured on
BATCH = 8  # of them whose activations are held at a time


def channel_importance(model: nn.Module, images: Images, layers: Mapping[str, nn.Module], *, seed: int = 0,
                       note: Callable[[str], None] = lambda sentence: None) -> dict[str, Tensor]:
    """Layer -> float64 [out]: weights of the squared errors of its output channels, 1 in their mean.

    The diagonal of the Fisher information about the layer's outputs, summed over positions: to second order the KL of
    the classes rises so much when a channel is off (of outputs that are no classes, the squared error). Batch norms and
    all that follows count, which a layer's own error does not see.

    Args:
        model: in evaluation mode; as before at the end.
        images: that calibrate; some of them are enough.
        layers: of the model.
        seed: of the classes that are drawn from what the network believes.
        note: told why where the network gives no gradients; the result is empty then, and every channel counts alike.
    """
    generator = torch.Generator().manual_seed(seed)
    seen: dict[str, list[Tensor]] = {}
    with keep_state(model), _listening(model, layers, seen), torch.enable_grad():
        for batch in images.some(IMAGES):
            for part in batch.split(BATCH) if isinstance(batch, Tensor) else [batch]:
                try:
                    _drawn(_called(model, part), generator).backward()
                except Exception as error:  # whatever a user's forward or backward raises
                    note(f"every channel counts alike, because the network gives no gradients: {first_line(error)}")
                    return {}
    return {name: _relative(_shrunk(torch.cat(each))) for name, each in seen.items()}


def _called(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, dict):
        return model(**batch)
    return model(*batch) if isinstance(batch, (list, tuple)) else model(batch)


def _drawn(output: Any, generator: torch.Generator) -> Tensor:
    """A value whose gradients' mean square is the Fisher information; without classes, Gauss and Newton's."""
    if is_classes(output):
        chances = output.detach().double().softmax(1).cpu()
        classes = torch.multinomial(chances, 1, generator=generator)[:, 0]
        return F.cross_entropy(output, classes.to(output.device), reduction="sum")
    signs = [each * torch.randn(each.shape, generator=generator).to(each)
             for each in tensors_in(output) if each.is_floating_point()]
    return torch.stack([each.sum() for each in signs]).sum()


@contextmanager
def _listening(model: nn.Module, layers: Mapping[str, nn.Module], seen: dict[str, list[Tensor]]) -> Iterator[None]:
    """While it lasts, backward appends the squared gradients to every layer's outputs to `seen`: [images, out]."""
    def listen(name: str, layer: nn.Module, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output = output.detach().requires_grad_().clone()  # the network may change what it gets in place
        own = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        across = [place for place in range(1, output.dim()) if place != own]

        def add(gradient: Tensor) -> None:
            squares = gradient.detach().double().square()
            seen.setdefault(name, []).append((squares.sum(across) if across else squares).cpu())

        output.register_hook(add)
        return output

    flags = [(each, each.requires_grad) for each in model.parameters()]
    handles = [layer.register_forward_hook(lambda layer, _, output, name=name: listen(name, layer, output))
               for name, layer in layers.items()]
    try:
        for each, _ in flags:
            each.requires_grad_(False)  # only outputs are asked for
        yield
    finally:
        for handle in handles:
            handle.remove()
        for each, flag in flags:
            each.requires_grad_(flag)


def _shrunk(squares: Tensor) -> Tensor:
    """Means over images [images, out], [out], drawn to that of all channels as far as their differences are chance.

    What is left of the variance among channels' means, without what images of this number scatter them by, is taken for
    real (empirical Bayes: Efron and Morris, JASA 1973). Late channels mean much to a few classes each: on a few dozen
    images most would seem to be worth nothing.
    """
    means = squares.mean(0)
    if len(squares) < 2 or len(means) < 2:
        return means
    chance = float((squares.var(0) / len(squares)).mean())
    found = float(means.var())
    return torch.lerp(means.mean(), means, max(0.0, 1 - chance / found)) if found > 0 else means


def _relative(squares: Tensor) -> Tensor:
    mean = squares.mean()
    if not 0 < float(mean) < float("inf"):
        return torch.ones_like(squares)
    return squares / mean * (1 - FLOOR) + FLOOR
