"""One trial of comparison.yaml: prune the trained network, fine-tune it, report accuracy, size and latency.

A trial whose result stands in the folder ONEXN_KEPT reports it again, so that a stopped experiment goes on.
"""

from __future__ import annotations

import nni

# First of all: NNI hands parameters to whichever trial asks first, and the imports below take seconds.
PARAMETERS = nni.get_next_parameter() or {
    "run": {"seed": 0, "sparse_ratio": 0.75}, "pruner": {"_name": "OneXNPruner", "block_size": 4}}

import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

SHARE, JUDGED = 10, 2  # a tenth of an epoch, and half of the held-out images
# Such a share of every layer's filters, cut by ModelSpeedup, leaves as many multiply-accumulates as those blocks do.
FILTERS = {0.75: 0.45, 0.5: 0.28}


def main() -> None:
    """Report what stands there, or what was measured now."""
    kept = Path(os.environ["ONEXN_KEPT"]) / f"{name(PARAMETERS)}.json"
    if not kept.is_file():
        result = trial(**PARAMETERS["run"], chosen=PARAMETERS["pruner"])
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    nni.report_final_result(json.loads(kept.read_text(encoding="utf-8")))


def name(parameters: dict[str, Any]) -> str:
    """Unique, and fit for a file; the dense network is the same at every ratio."""
    run, chosen = parameters["run"], parameters["pruner"]
    words = [f"{key}={FILTERS[run['sparse_ratio']] if key == 'cut' else value}"
             for key, value in sorted(chosen.items()) if key != "_name"]
    ratio = [] if chosen["_name"] == "dense" else [f"{run['sparse_ratio']:g}"]
    return "-".join([chosen["_name"], *ratio, *words, f"seed={run['seed']}"])


def trial(seed: int, sparse_ratio: float, chosen: dict[str, Any]) -> dict[str, Any]:
    """Everything about one contender."""
    from benchmarks.common.record import commit
    from benchmarks.experiment.task import copy_of, dense_network, fine_tune
    from onexn_plugins.nni import finish
    from onexn_plugins.training import read_zip
    from onexn_plugins.training.data.images import Request

    started, cpu = time.time(), time.process_time()
    data = read_zip(os.environ["ONEXN_DATA"])
    dense = dense_network()
    image = data.held_out[Request(0, [0])].images
    pruner, model = prune(copy_of(dense), chosen, sparse_ratio, image)
    with tempfile.TemporaryDirectory() as folder:
        accuracy = fine_tune(model, data, seed, SHARE, Path(folder), JUDGED)
    nni.report_intermediate_result(accuracy)
    measured = finish(pruner, image, dense=dense)
    said = {"pruner": chosen["_name"], "sparse_ratio": 0.0 if chosen["_name"] == "dense" else sparse_ratio}
    return {**measured, **said, "seed": seed, "default": accuracy,
            "seconds": round(time.time() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
            "load_average": round(os.getloadavg()[0], 1), "commit": commit()}


def prune(network: Any, chosen: dict[str, Any], ratio: float, image: Any) -> tuple[Any, Any]:
    """(the pruner, or the network where nothing is pruned; the network to fine-tune)."""
    from nni.compression.utils import auto_set_denpendency_group_ids  # sic

    from onexn_plugins.layers import prunable_layers
    from onexn_plugins.nni import pruner_from_config
    from onexn_plugins.nni.filters.tracer import tracing_on_this_torch

    if chosen["_name"] == "dense":
        return network, network
    # Every layer but the stem and depthwise ones, which have no blocks; of filters all, for those go together.
    config: list[dict[str, Any]] = [{"op_names": list(prunable_layers(network)), "sparse_ratio": ratio}]
    if chosen.get("cut"):
        config = [{"op_types": ["Conv2d"], "sparse_ratio": FILTERS[ratio]}]
        with tracing_on_this_torch():
            config = auto_set_denpendency_group_ids(network, config, image)
    pruner = pruner_from_config(network, {"pruner": chosen, "config_list": config, "example_inputs": image})
    model, _ = pruner.compress()
    return pruner, model


if __name__ == "__main__":
    main()
