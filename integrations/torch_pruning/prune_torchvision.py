"""Prune a torchvision model to 1×N blocks, fine-tune it, export it to ONNX and compile it.

    python prune_torchvision.py --model mobilenet_v2 --weights DEFAULT --data /path/to/imagenet --epochs 10
    python prune_torchvision.py --model resnet18 --data digits --image-size 32 --epochs 3

--data is a folder with train/ and val/, one sub-folder per class (torchvision's ImageFolder), or "digits" for
scikit-learn's handwritten digits, which need no download.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from onexn_plugins import export_onnx
from onexn_plugins.torch_pruning import BlockL1Importance, OneXNPruner
from onexn_plugins.zoo import import_torchvision

torchvision = import_torchvision()


def digits(image_size: int) -> tuple[TensorDataset, TensorDataset, int]:
    """scikit-learn's 1797 grey 8×8 digits as colour images; every fifth is held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    images = nn.functional.interpolate(images, size=image_size, mode="bilinear").expand(-1, 3, -1, -1)
    labels = torch.tensor(data.target)
    held_out = torch.arange(len(labels)) % 5 == 0
    return TensorDataset(images[~held_out], labels[~held_out]), TensorDataset(images[held_out], labels[held_out]), 10


def image_folder(root: Path, image_size: int):
    """Images below root/train and root/val, one sub-folder per class, normalised as torchvision's weights expect."""
    from torchvision import datasets, transforms

    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    augmented = transforms.Compose([transforms.RandomResizedCrop(image_size), transforms.RandomHorizontalFlip(),
                                    transforms.ToTensor(), normalize])
    plain = transforms.Compose([transforms.Resize(image_size * 8 // 7), transforms.CenterCrop(image_size),
                                transforms.ToTensor(), normalize])
    train = datasets.ImageFolder(str(root / "train"), augmented)
    return train, datasets.ImageFolder(str(root / "val"), plain), len(train.classes)


def build_model(name: str, weights: str | None, classes: int) -> nn.Module:
    """The torchvision model; where the classes are not ImageNet's, its last Linear layer is replaced."""
    model = torchvision.models.get_model(name, weights=weights)
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    if model.get_submodule(last).out_features != classes:
        parent, _, attribute = last.rpartition(".")
        replacement = nn.Linear(model.get_submodule(last).in_features, classes)
        setattr(model.get_submodule(parent), attribute, replacement)
    return model


def train_epochs(model: nn.Module, loader: DataLoader, epochs: int, learning_rate: float) -> None:
    """Plain SGD: the masks need nothing special, pruned weights stay zero."""
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9, weight_decay=4e-5, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(loader)))
    for epoch in range(epochs):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
        print(f"  epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def top1(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)


def compile_and_time(model: nn.Module, onnx_path: str, example: Tensor, target: str) -> None:
    """Compile for the target and save; what was compiled for this machine is compared to torch and timed."""
    from onexn_plugins.tvm_backend import compile_model

    compiled = compile_model(onnx_path, target=target)
    artefact = compiled.save(Path(onnx_path).with_suffix(""))
    sparse = sum(layer.sparse for layer in compiled.layers)
    print(f"compiled for {target}: {artefact}, {sparse} of {len(compiled.layers)} layers skip their zero blocks")
    if target == "host":
        with torch.no_grad():
            expected = model(example)
        difference = (expected - torch.from_numpy(compiled.run(example.numpy()))).abs().max() / expected.abs().max()
        print(f"difference from torch {difference.item():.1e} of the output's scale, "
              f"{compiled.benchmark().median:.2f} ms per image")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2", help="any torchvision classification model")
    parser.add_argument("--weights", help="torchvision's name for its weights, for example DEFAULT")
    parser.add_argument("--data", default="digits", help="a folder with train/ and val/, or digits")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--limit", type=int, help="use only so many images of each set")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pretrain", type=int, default=0, help="epochs before pruning, where --weights is not given")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of fine-tuning after the last pruning step")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--pruning-ratio", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=1, help="prune in so many steps, an epoch of training in between")
    parser.add_argument("--rearrange", action="store_true", help="move channels first, so that less is lost")
    parser.add_argument("--output", type=Path, default=Path("pruned.onnx"))
    parser.add_argument("--target", default="host", help="what to compile for: host, cortex-a72, ... or none")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    torch.manual_seed(0)
    sets = digits(args.image_size) if args.data == "digits" else image_folder(Path(args.data), args.image_size)
    *datasets, classes = sets
    if args.limit:
        datasets = [Subset(dataset, range(min(args.limit, len(dataset)))) for dataset in datasets]
    train, held_out = (DataLoader(dataset, args.batch_size, shuffle=dataset is datasets[0]) for dataset in datasets)
    example = next(iter(held_out))[0][:1]

    model = build_model(args.model, args.weights, classes)
    train_epochs(model, train, args.pretrain, args.learning_rate)
    print(f"dense: top-1 {top1(model, held_out):.3f}")

    pruner = OneXNPruner(model, example, BlockL1Importance(), block_size=args.block_size, rearrange=args.rearrange,
                         pruning_ratio=args.pruning_ratio, iterative_steps=args.steps)
    if pruner.rearrangement is not None:
        moved = pruner.rearrangement
        print(f"rearranged: {moved.retained_before:.3f} -> {moved.retained_after:.3f} of the L1 norm will stay")
    for step in range(args.steps):
        pruner.step()
        sparsity = pruner.report().sparsity
        print(f"step {step + 1}: {sparsity.blocks:.1%} of blocks pruned, top-1 {top1(model, held_out):.3f}")
        train_epochs(model, train, args.epochs if step + 1 == args.steps else 1, args.learning_rate)
    print(f"fine-tuned: top-1 {top1(model, held_out):.3f}")

    pruner.fold()
    model.eval()
    path = export_onnx(model, example, args.output, block_size=args.block_size)
    print(f"exported: {path}")
    if args.target != "none":
        compile_and_time(model, path, example, args.target)


if __name__ == "__main__":
    main()
