"""The scripts that users copy, run small; and fine-tuning in two processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "integrations" / "torch_pruning"


def run(arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prune_torchvision(tmp_path):
    output = run([SCRIPTS / "prune_torchvision.py", "--model", "mobilenet_v2", "--image-size", 32, "--limit", 32,
                  "--epochs", 1, "--steps", 2, "--pruning-ratio", 0.75, "--rearrange"], tmp_path)
    assert "step 1: 37.5% of blocks pruned" in output
    assert "step 2: 75.0% of blocks pruned" in output
    assert (tmp_path / "pruned.onnx").stat().st_size > 1_000_000
    assert float(re.search(r"difference from torch (\S+)", output)[1]) < 1e-4
    assert re.search(r"(\d+) of 53 layers skip their zero blocks", output)[1] != "0"


def test_prune_timm(tmp_path):
    output = run([SCRIPTS / "prune_timm.py", "--model", "mobilenetv2_050", "--image-size", 32, "--batches", 1],
                 tmp_path)
    assert "in all 50.0% of blocks" in output
    assert (tmp_path / "pruned.onnx").is_file()


def test_gradual_pruning_interrupted_and_resumed_ends_with_the_same_weights(tmp_path):
    script = SCRIPTS / "gradual.py"
    through, parts = tmp_path / "through.safetensors", tmp_path / "parts.safetensors"
    common = [script, "--epochs", 2, "--straight-through", "--checkpoint"]
    last = run([*common, through], tmp_path).splitlines()[-1]
    run([*common, parts, "--stop-after", 1], tmp_path)
    output = run([*common, parts], tmp_path).splitlines()
    assert output == ["resumed after epoch 1", last]
    assert through.read_bytes() == parts.read_bytes()
    assert float(re.search(r"top-1 (\S+)", last)[1]) > 0.8


WORKER = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from onexn_plugins import fold
from onexn_plugins.masking import masks
from onexn_plugins.torch_pruning import OneXNPruner
from tests.torch_pruning.networks import IMAGES, small_net

dist.init_process_group("gloo")
rank = dist.get_rank()


def agree(model):
    for name, mask in masks(model).items():
        for tensor in (mask.keep.to(torch.uint8), model.get_submodule(name).weight.detach()):
            both = [torch.empty_like(tensor) for _ in range(2)]
            dist.all_gather(both, tensor.contiguous())
            assert torch.equal(*both), name


for order in ("pruner, wrapper", "wrapper, pruner", "pruner of the wrapper", "one step before the wrapper"):
    bare = small_net(seed=rank)  # the wrapper gives rank 0's weights to both
    if order.startswith("wrapper") or order.endswith("of the wrapper"):
        model = DistributedDataParallel(bare)
        pruner = OneXNPruner(bare if order.startswith("wrapper") else model, IMAGES, iterative_steps=3)
    else:
        pruner = OneXNPruner(bare, IMAGES, iterative_steps=3)
        if order.startswith("one"):
            pruner.step()
        model = DistributedDataParallel(bare)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    while pruner.current_step < 3:
        pruner.step()
        for batch in range(2):
            optimizer.zero_grad()
            data = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(10 * rank + batch))
            model(data).square().mean().backward()
            optimizer.step()
        agree(bare)
    fold(bare)
    model(IMAGES).square().mean().backward()  # and goes on without masks
    if rank == 0:
        print("agree:", order, flush=True)
dist.destroy_process_group()
os._exit(0)  # about one in ten interpreters that shut down after gloo is aborted by torch's threads
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="gloo over loopback is tried on Linux")
def test_two_processes_keep_the_same_masks_in_whatever_order_the_model_is_wrapped(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    output = run(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, worker], tmp_path)
    assert output.count("agree:") == 4
