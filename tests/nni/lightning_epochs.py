"""LightningEvaluator by epochs, one-shot and scheduled, by NNI's pruner and ours; run by test_lightning.py."""

import os
import sys
import warnings

warnings.filterwarnings("ignore")

import onexn_plugins.nni  # noqa: E402  (first: it helps Lightning past a torchvision of another torch)

# isort: split
import nni  # noqa: E402
import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from nni.compression import LightningEvaluator  # noqa: E402
from nni.compression.pruning import AGPPruner, L1NormPruner  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from onexn_plugins import fold, measure  # noqa: E402

CONFIG = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "exclude_op_names": ["model.0"]}]


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3),
                                   nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return nni.trace(torch.optim.SGD)(self.parameters(), lr=0.01)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(32, 3, 8, 8), torch.randint(0, 4, (32,))), 8)


os.chdir(sys.argv[1])
for pruner in (L1NormPruner, onexn_plugins.nni.OneXNPruner):
    for scheduled in (False, True):
        net = Net()
        trainer = nni.trace(pl.Trainer)(max_epochs=2, logger=False, enable_checkpointing=False,
                                        enable_progress_bar=False, accelerator="cpu")
        made = pruner(net, CONFIG, LightningEvaluator(trainer, nni.trace(Data)()))
        if scheduled:
            made = AGPPruner(made, 2, 3)
            made.compress(None, 2)
        else:
            made.compress()
        fold(net)  # not unwrap_model(), which brings the weights back that NNI's pruners have pruned
        zeros = float((net.model[3].weight == 0).float().mean())
        print("result", pruner.__name__, scheduled, zeros, measure(net).sparsity.weights)
