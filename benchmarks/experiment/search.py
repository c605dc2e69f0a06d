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
from onexn_plugins.nni.finishing import Engines, engines
from onexn_plugins.training import start_fabric
from onexn_plugins.training.data.images import ImageData, Request
from onexn_plugins.training.evaluation import evaluate

SEARCH = Path(__file__).with_name("search.yaml")
TRIALS, SEEDS, JUDGED = 12, (0, 1, 2), 4
# Ratios around the target, in blocks of each size that the search has.
UNIFORM = tuple(uniform(ratio, size) for ratio in (0.55, 0.65, 0.45, 0.75) for size in (4, 8, 16))


def run(data: ImageData, out: Path, command: str, say: Callable[[str], None], trials: int = TRIALS) -> dict[str, Any]:
    """The candidates that `out` does not hold yet, one search after the other; `out` is written after each.

    Args:
        data: all images.
        out: JSON: the trials of every search.
        command: said in it.
        say: told what is done.
        trials: of each search.
    """
    values: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {"target": TARGET, "searches": []}
    dense = dense_network()
    beside = engines(dense, data.held_out[Request(0, [0])].images)

    def save() -> None:
        values["record"] = record(command)
        with written_aside(out) as aside:
            aside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    for seed in SEEDS:
        for by, suggestions in (("TPE", Tpe(seed)), ("uniform", Listed())):
            search = _begun(values["searches"], by, seed)
            for number, chosen in zip(range(trials), suggestions, strict=False):
                if number == len(search["trials"]):
                    search["trials"].append(_tried(dense, data, chosen, search, beside))
                    save()
                    say(f"{by}, seed {seed}, {number + 1} of {trials}: {search['trials'][-1]}")
                suggestions.told(number, chosen, search["trials"][number]["default"])
    return values


def best(search: dict[str, Any]) -> dict[str, Any] | None:
    """The trial that is the most accurate of those that are fast enough."""
    enough = [trial for trial in search["trials"] if trial["faster"] >= TARGET]
    return max(enough, key=lambda trial: trial["accuracy"], default=None)


def _begun(searches: list[dict[str, Any]], by: str, seed: int) -> dict[str, Any]:
    """The search of that kind; a new one where there is none yet."""
    for search in searches:
        if (search["by"], search["seed"]) == (by, seed):
            return search
    searches.append({"by": by, "seed": seed, "trials": []})
    return searches[-1]


def _tried(dense: nn.Module, data: ImageData, chosen: dict[str, Any], search: dict[str, Any],
           beside: Engines) -> dict[str, Any]:
    """A candidate; judged by held-out images, too, where it is the best one yet."""
    result, model = candidate(dense, data, chosen, search["seed"], beside)
    so_far = best(search)
    if result["faster"] >= TARGET and (so_far is None or result["accuracy"] > so_far["accuracy"]):
        fabric = start_fabric()
        result["held_out"] = evaluate(fabric, fabric.setup_module(model), Every(data.held_out, JUDGED)).top1
    return result


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
