"""python -m benchmarks.filters: which networks NNI's filter pruners really make smaller.

Half of the filters of every convolution but the first are pruned by L1 norm and cut out, on random weights: this is
about graphs, not accuracy. A network counts as cut if the smaller one runs, returns finite outputs of the same shapes,
and learns: one step of training gives every weight a finite gradient.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import warnings
from pathlib import Path
from typing import Any

from benchmarks.common.record import command_line, record

RESULTS = Path(__file__).with_name("results") / "filters.json"
NETWORKS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "timm/efficientnet_lite0", "efficientnet_b0",
            "mnasnet1_0", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "regnet_x_400mf",
            "regnet_y_400mf", "densenet121", "googlenet", "vgg11", "squeezenet1_1", "shufflenet_v2_x1_0",
            "convnext_tiny")
# Where channels run through Linear layers too, these are selected with the convolutions.
WITH_LINEAR = ("convnext_tiny",)
PIXELS, LARGER = 64, {"googlenet": 96, "vgg11": 64}
RATIO = 0.5
SECONDS = 240


def cut(network: str) -> dict[str, Any]:
    """One row of the table."""
    import torch
    from nni.compression.pruning import L1NormPruner
    from torch import nn

    from onexn_plugins.errors import OneXNError
    from onexn_plugins.nni.filters import cut_filters
    from onexn_plugins.zoo import load_model

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    model, pixels = load_model(network), LARGER.get(network, PIXELS)
    images = torch.randn(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    linears = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    types = ["Conv2d", "Linear"] if network in WITH_LINEAR else ["Conv2d"]
    config = [{"op_types": types, "exclude_op_names": [convolutions[0], linears[-1]] if linears else convolutions[:1],
               "sparse_ratio": RATIO}]
    row: dict[str, Any] = {"network": network, "pixels": pixels}
    try:
        result = cut_filters(model, L1NormPruner, config, images)
    except OneXNError as error:
        return row | {"cut_by": "neither", "reason": error.reason}
    loss = result.model.train()(images)
    loss = getattr(loss, "logits", loss).float().square().mean()
    loss.backward()
    learns = all(bool(torch.isfinite(parameter.grad).all()) for parameter in result.model.parameters()
                 if parameter.grad is not None)
    return row | {"cut_by": result.method, "reason": result.reason, "parameters_before": result.parameters_before,
                  "parameters_after": result.parameters_after, "learns": learns}


def main(arguments: list[str] | None = None) -> int:
    """0 where every network was cut, one way or the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    data = record(command_line("benchmarks.filters")) | {"sparse_ratio": RATIO, "networks": []}
    for network in options.networks:
        row = _in_a_process(network)
        print("  ".join(str(value) for value in row.values()), flush=True)
        data["networks"].append(row)
        options.out.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(row["cut_by"] == "neither" for row in data["networks"]))


def _in_a_process(network: str) -> dict[str, Any]:
    """Whatever goes wrong in one network harms no other."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            return pool.apply_async(cut, (network,)).get(SECONDS)
        except multiprocessing.TimeoutError:
            return {"network": network, "cut_by": "neither", "reason": f"not done in {SECONDS} s"}
        except Exception as error:
            return {"network": network, "cut_by": "neither", "reason": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    sys.exit(main())
