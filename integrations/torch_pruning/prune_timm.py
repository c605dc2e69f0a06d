"""Prune a timm model to 1×N blocks by torch-pruning's Taylor importance, layers competing for one budget.

    python prune_timm.py --model efficientnet_lite0 --pretrained --data /path/to/calibration/images
    python prune_timm.py --model mobilenetv2_050 --image-size 64

A few batches of images with labels give the gradients; without --data they are noise, which serves to try it out.
The result is written as ONNX. Fine-tune it as in prune_torchvision.py; the masks need nothing special.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn

from onexn_plugins import export_onnx
from onexn_plugins.torch_pruning import OneXNPruner
from onexn_plugins.zoo import import_torchvision


def build_model(name: str, pretrained: bool) -> nn.Module:
    import_torchvision()  # timm imports torchvision, whose wheel may not fit a CPU-only torch
    import timm

    return timm.create_model(name, pretrained=pretrained).eval()


def batches(data: Path | None, image_size: int, count: int, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` batches of 8 labelled images, from one sub-folder per class or of noise."""
    if data is None:
        for _ in range(count):
            yield torch.randn(8, 3, image_size, image_size), torch.randint(classes, (8,))
        return
    from torchvision import datasets, transforms

    prepare = transforms.Compose([
        transforms.Resize(image_size), transforms.CenterCrop(image_size), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    loader = torch.utils.data.DataLoader(datasets.ImageFolder(str(data), prepare), 8, shuffle=True)
    for _, batch in zip(range(count), loader, strict=False):
        yield batch


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0", help="any timm classification model")
    parser.add_argument("--pretrained", action="store_true", help="download timm's weights")
    parser.add_argument("--data", type=Path, help="a folder with one sub-folder per class")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--pruning-ratio", type=float, default=0.5)
    parser.add_argument("--max-pruning-ratio", type=float, default=0.9, help="of any single layer")
    parser.add_argument("--output", type=Path, default=Path("pruned.onnx"))
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    model = build_model(args.model, args.pretrained)
    example = torch.randn(1, 3, args.image_size, args.image_size)
    pruner = OneXNPruner(
        model, example, tp.importance.TaylorImportance(), block_size=args.block_size, scope="global",
        pruning_ratio=args.pruning_ratio, max_pruning_ratio=args.max_pruning_ratio)
    for images, labels in batches(args.data, args.image_size, args.batches, model.num_classes):
        nn.functional.cross_entropy(model(images), labels).backward()
    pruner.step()
    model.zero_grad()

    report = pruner.report()
    for layer in report.layers:
        if layer.prunable:
            print(f"{layer.name:50} {layer.shape!s:22} {layer.sparsity.blocks:6.1%} of blocks pruned")
    print(f"in all {report.sparsity.blocks:.1%} of blocks, {report.sparsity.weights:.1%} of weights; "
          f"{report.macs / 1e6:.1f} of {report.dense_macs / 1e6:.1f} million multiply-accumulates remain")
    pruner.fold()
    print(f"exported: {export_onnx(model, example, args.output, block_size=args.block_size)}")


if __name__ == "__main__":
    main()
