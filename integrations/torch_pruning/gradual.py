"""Gradual 1×N pruning inside your own training loop, stopped and resumed at any epoch.

    python gradual.py --epochs 12 --pruning-ratio 0.75
    python gradual.py --epochs 12 --pruning-ratio 0.75 --stop-after 5     # an interruption
    python gradual.py --epochs 12 --pruning-ratio 0.75                    # goes on from gradual.safetensors

The loop is an ordinary one. Three lines concern pruning: pruner.step() at the start of an epoch, save_checkpoint at
its end, load_checkpoint before the first. A run that was interrupted ends with the same weights, bit for bit, as one
that was not. Replace `digits` and `small_cnn` by your own data and network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from onexn_plugins import load_checkpoint, save_checkpoint
from onexn_plugins.torch_pruning import OneXNPruner


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's 1797 handwritten digits, 8×8; every fifth is held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(data.target)
    held_out = torch.arange(len(labels)) % 5 == 0
    return images[~held_out], labels[~held_out], images[held_out], labels[held_out]


def small_cnn() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(block(1, 32, 1), block(32, 64, 2), block(64, 64, 1), block(64, 128, 2),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def cubic(pruning_ratio: float, steps: int) -> list[float]:
    """Fast at first, slow at the end (Zhu and Gupta 2017); the last third of the epochs only trains."""
    ramp = max(1, steps * 2 // 3)
    return [pruning_ratio * (1 - (1 - min(1.0, step / ramp)) ** 3) for step in range(steps + 1)]


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, seed: int) -> None:
    model.train()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    for batch in order.split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((model.eval()(images).argmax(1) == labels).float().mean())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--pruning-ratio", type=float, default=0.75)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--straight-through", action="store_true", help="pruned blocks may come back, a quarter a step")
    parser.add_argument("--checkpoint", type=Path, default=Path("gradual.safetensors"))
    parser.add_argument("--stop-after", type=int, help="end after this epoch, as an interruption would")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    images, labels, held_out_images, held_out_labels = digits()
    model = small_cnn()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    pruner = OneXNPruner(
        model, images[:2], block_size=args.block_size, pruning_ratio=args.pruning_ratio, iterative_steps=args.epochs,
        iterative_pruning_ratio_scheduler=cubic, straight_through=args.straight_through,
        regrowth=0.25 if args.straight_through else 0.0)

    first = 0
    if args.checkpoint.exists():
        state = load_checkpoint(model, args.checkpoint)
        pruner.load_state_dict(state["pruner"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
        print(f"resumed after epoch {first}")
    for epoch in range(first, args.epochs):
        pruner.step()
        train_epoch(model, optimizer, images, labels, seed=epoch)
        save_checkpoint(model, args.checkpoint, pruner=pruner.state_dict(), optimizer=optimizer.state_dict(),
                        epoch=epoch)
        print(f"epoch {epoch + 1}: {pruner.report().sparsity.blocks:.1%} of blocks pruned, "
              f"top-1 {top1(model, held_out_images, held_out_labels):.3f}", flush=True)
        if args.stop_after == epoch + 1:
            return
    pruner.fold()


if __name__ == "__main__":
    main()
