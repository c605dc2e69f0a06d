"""One trial: train a small network on scikit-learn's digits, prune it, fine-tune it, report what came out.

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
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from onexn_plugins.nni import finish, pruner_from_config  # noqa: E402

EPOCHS = int(os.environ.get("ONEXN_EPOCHS", "12"))
DEFAULTS = {"pruner": {"_name": "OneXNPruner", "block_size": 4}, "sparse_ratio": 0.5, "layers": ["conv2", "conv3"]}


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


def train(model: nn.Module, data: tuple[Tensor, Tensor, Tensor, Tensor], learning_rate: float) -> float:
    """Accuracy on the held-out images after EPOCHS, reported after each."""
    images, labels, test_images, test_labels = data
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    accuracy = 0.0
    for _ in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (model.eval()(test_images).argmax(1) == test_labels).float().mean().item()
        nni.report_intermediate_result(accuracy)
    return accuracy


def main() -> None:
    torch.manual_seed(0)
    model, data = DigitsNet(), load_data()
    image = data[2][:1]
    defaults = DEFAULTS | {"example_inputs": image}
    pruner_from_config(DigitsNet(), PARAMETERS, **defaults)  # a typo ends the trial here, before it has trained
    dense = train(model, data, 1e-2)
    pruner = pruner_from_config(model, PARAMETERS, **defaults)
    model, _ = pruner.compress()
    accuracy = train(model, data, 1e-3)
    nni.report_final_result(finish(pruner, image) | {"default": accuracy, "dense_accuracy": dense})


if __name__ == "__main__":
    main()
