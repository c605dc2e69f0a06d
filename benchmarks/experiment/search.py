"""Many searches in one process, by NNI's own tuner, beside uniform ratios with as many trials."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from nni.tools.package_utils.tuner_factory import create_builtin_class_instance
from torch import nn

from benchmarks.common.record import record
from benchmarks.experiment.candidate import TARGET, candidate, uniform
from benchmarks.experiment.task import Every, dense_network
from onexn_plugins.files import written_aside
from onexn_plugins.training import start_fabric
from onexn_plugins.training.data.images import ImageData
from onexn_plugins.training.evaluation import evaluate

SEARCH = Path(__file__).with_name("search.yaml")
TRIALS, SEEDS, JUDGED = 12, (0, 1, 2), 2
# Ratios around the target, in blocks of each size that the search has.
UNIFORM = tuple(uniform(ratio, size) for ratio in (0.65, 0.75, 0.85, 0.95) for size in (4, 8, 16))


def run(data: ImageData, out: Path, command: str, say: Callable[[str], None], trials: int = TRIALS) -> dict[str, Any]:
    """The searches that `out` does not hold yet, one seed after the other; `out` is written after each.

    Args:
        data: all images.
        out: JSON: the trials of every search, and what became of its best network on held-out images.
        command: said in it.
        say: told what is done.
        trials: of each search.
    """
    values: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {"target": TARGET, "searches": []}
    dense, done = dense_network(), {(search["by"], search["seed"]) for search in values["searches"]}
    for seed in SEEDS:
        for by, suggestions in (("TPE", Tpe(seed)), ("uniform", Listed())):
            if (by, seed) in done:
                continue
            say(f"{by}, seed {seed}")
            search = one(dense, data, suggestions, seed, trials, say)
            values["searches"].append({"by": by, "seed": seed, **search})
            values["record"] = record(command)
            with written_aside(out) as aside:
                aside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return values


def one(dense: nn.Module, data: ImageData, suggestions: Any, seed: int, trials: int,
        say: Callable[[str], None]) -> dict[str, Any]:
    """One search: its trials; and of the best one that is fast enough the accuracy on images it never saw."""
    reported, best, network = [], -1.0, None
    for number, chosen in zip(range(trials), suggestions, strict=False):
        result, model = candidate(dense, data, chosen, seed)
        suggestions.told(number, chosen, result["default"])
        reported.append(result)
        say(f"{number + 1} of {trials}: {result['accuracy']:.3f}, {result['faster']:.2f} times faster, "
            f"{result['cpu_seconds']} s")
        if result["faster"] >= TARGET and result["accuracy"] > best:
            best, network = result["accuracy"], model
    if network is None:
        return {"trials": reported, "best": None}
    fabric = start_fabric()
    top1 = evaluate(fabric, fabric.setup_module(network), Every(data.held_out, JUDGED)).top1
    say(f"best {best:.3f}, on held-out images {top1:.3f}")
    return {"trials": reported, "best": {"accuracy": best, "held_out": top1}}


class Tpe:
    """What NNI's tuner suggests for search.yaml's space."""

    def __init__(self, seed: int) -> None:
        config = yaml.safe_load(SEARCH.read_text(encoding="utf-8"))
        self._tuner = create_builtin_class_instance("TPE", config["tuner"]["classArgs"] | {"seed": seed}, "tuners")
        self._tuner.update_search_space(config["searchSpace"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        number = 0
        while True:
            yield self._tuner.generate_parameters(number)
            number += 1

    def told(self, number: int, chosen: dict[str, Any], value: float) -> None:
        """A trial's metric."""
        self._tuner.receive_trial_result(number, chosen, value)


class Listed:
    """Uniform ratios, the most likely ones first; nothing is learnt from results."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from UNIFORM

    def told(self, number: int, chosen: dict[str, Any], value: float) -> None:
        """A trial's metric."""
