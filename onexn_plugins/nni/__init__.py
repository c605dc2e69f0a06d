"""1×N pruning for NNI 3.0: `OneXNPruner` takes a config_list like NNI's own pruners.

    pruner = OneXNPruner(model, [{"op_types": ["Conv2d"], "exclude_op_names": ["conv1"], "sparse_ratio": 0.5}])
    model, masks = pruner.compress()
    ...                                  # fine-tune, then
    pruner.unwrap_model()
    onexn_plugins.fold(model)

NNI's schedulers (`LinearPruner`, `AGPPruner`) and `from_compressor` work as with NNI's own pruners.
"""

import contextlib
from importlib.util import find_spec

from onexn_plugins.errors import MissingDependencyError

if find_spec("pytorch_lightning") is not None:
    # NNI imports Lightning, which imports torchvision, which may be built for another torch and then needs help.
    from onexn_plugins.zoo import import_torchvision

    with contextlib.suppress(MissingDependencyError):
        import_torchvision()

try:
    import nni.compression.pruning  # noqa: F401  (the toolkit itself: imports are absolute)
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "nni":
        raise
    raise MissingDependencyError("nni", extra="nni") from error

from onexn_plugins.nni.experiment import run_experiment
from onexn_plugins.nni.filters import FilterPruner, cut_filters
from onexn_plugins.nni.finishing import finish
from onexn_plugins.nni.from_config import pruner_from_config
from onexn_plugins.nni.pruner import OneXNPruner, register
from onexn_plugins.nni.speedup_guard import guard_model_speedup

guard_model_speedup()

__all__ = ["FilterPruner", "OneXNPruner", "cut_filters", "finish", "pruner_from_config", "register", "run_experiment"]
