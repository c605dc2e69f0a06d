"""One trial: train a small network on scikit-learn's digits, prune it, fine-tune it, report its accuracy.

NNI chooses the pruner and the ratio; every trial trains and fine-tunes equally long from the same seed. Without an
experiment (`python trial.py`) the defaults run. Epochs can be shortened with ONEXN_EPOCHS.
"""

from __future__ import annotations

import os
from typing import Any

import nni

# First of all: NNI hands parameters to whichever trial asks first, and the imports below take seconds.
PARAMETERS: dict[str, Any] = nni.get_next_parameter() or {}

import torch  # noqa: E402
from nni.compression import pruning  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import onexn_plugins.nni  # noqa: E402
from onexn_plugins import fold  # noqa: E402

EPOCHS = int(os.environ.get("ONEXN_EPOCHS", "12"))
PRUNED_LAYERS = ("conv2", "conv3")


class DigitsNet(nn.Sequential):
    """Three convolutions and a classifier for 8×8 grey images."""

    def __init__(self) -> None:
        super().__init__()
        for index, (inputs, outputs) in enumerate([(1, 16), (16, 32), (32, 32)], start=1):
            self.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, 3, padding=1))
            self.add_module(f"norm{index}", nn.BatchNorm2d(outputs))
            self.add_module(f"relu{index}", nn.ReLU())
        self.add_module("pool", nn.AdaptiveAvgPool2d(2))
        self.add_module("flatten", nn.Flatten())
        self.add_module("classifier", nn.Linear(128, 10))


def load_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, held-out images and labels; images float32 [count, 1, 8, 8] in 0..1."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)

    def to_images(array: Any) -> Tensor:
        return torch.tensor(array, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16

    return to_images(train_x), torch.tensor(train_y), to_images(test_x), torch.tensor(test_y)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, learning_rate: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    loss_of = nn.CrossEntropyLoss()
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss_of(model(images[batch]), labels[batch]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model.eval()(images).argmax(1) == labels).float().mean().item()


def prune(model: nn.Module, pruner: dict[str, Any], sparse_ratio: float) -> nn.Module:
    """The model wrapped and masked by the pruner of that name; other keys are its keyword arguments."""
    options = {key: value for key, value in pruner.items() if key != "_name"}
    pruner_class = getattr(pruning, pruner["_name"])
    model, _ = pruner_class(model, [{"op_names": list(PRUNED_LAYERS), "sparse_ratio": sparse_ratio}],
                            **options).compress()
    return model


def main() -> None:
    onexn_plugins.nni.register()  # so that OneXNPruner is found beside NNI's own pruners
    pruner = PARAMETERS.get("pruner", {"_name": "OneXNPruner", "block_size": 4})
    sparse_ratio = PARAMETERS.get("sparse_ratio", 0.5)
    torch.manual_seed(0)
    train_x, train_y, test_x, test_y = load_data()
    model = DigitsNet()
    train(model, train_x, train_y, EPOCHS, 1e-2)
    dense = accuracy(model, test_x, test_y)
    prune(model, pruner, sparse_ratio)
    train(model, train_x, train_y, EPOCHS, 1e-3)
    fold(model)  # wrappers off, zeros stay: NNI's own unwrap_model() would bring the pruned weights back
    layers = [model.get_submodule(name).weight for name in PRUNED_LAYERS]
    zeros = sum(int((weight == 0).sum()) for weight in layers) / sum(weight.numel() for weight in layers)
    nni.report_final_result({
        "default": accuracy(model, test_x, test_y),
        "dense_accuracy": dense,
        "zero_weights": zeros,
        # What this trial really ran: NNI may show another trial's parameters beside it.
        "pruner": pruner["_name"], "block_size": pruner.get("block_size"), "sparse_ratio": sparse_ratio,
    })


if __name__ == "__main__":
    main()
