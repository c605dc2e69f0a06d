"""benchmarks.experiment: equal work, a resumable trial, and tables that say what the trials reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("nni")

from benchmarks.experiment import candidate, page, search, task
from benchmarks.experiment.search import UNIFORM, Listed, Tpe
from onexn_plugins.training.data.images import ImageData
from onexn_plugins.training.data.zipped import PixelImages

HERE = Path(page.__file__).parent


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """The module of a trial, whose results are kept in tmp_path."""
    monkeypatch.setenv("ONEXN_KEPT", str(tmp_path))
    from benchmarks.experiment import comparison_trial

    return comparison_trial


@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_filters_are_cut_to_the_work_that_blocks_leave(trial, ratio):
    from onexn_plugins import measure

    dense, image = task.dense_network(), torch.zeros(1, 3, 32, 32)
    layers = measure(dense, 4, image).layers
    left = sum((layer.dense_macs or 0) * (1 - ratio if layer.prunable else 1) for layer in layers)
    pruner, small = trial.prune(task.copy_of(dense), {"_name": "L1NormPruner", "cut": True}, ratio, image)
    assert pruner.result.method == "ModelSpeedup"
    assert (measure(small, 4, image).dense_macs or 0) == pytest.approx(left, rel=0.02)


def test_every_point_of_the_comparison_is_a_trial_of_its_own_but_for_the_dense_network(trial):
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance

    config = yaml.safe_load((HERE / "comparison.yaml").read_text())
    tuner = create_builtin_class_instance("GridSearch", {}, "tuners")
    tuner.update_search_space(config["searchSpace"])
    points = [tuner.generate_parameters(number) for number in range(config["maxTrialNumber"])]
    names = [trial.name(point) for point in points]
    assert len(names) == 48
    assert len(set(names)) == 45
    assert {point["run"]["seed"] for point in points[:16]} == {0}, "a stopped experiment has no whole table"
    assert {point["run"]["sparse_ratio"] for point in points} == set(trial.FILTERS)


def test_a_result_that_is_kept_is_reported_again(trial, tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(trial.nni, "report_final_result", reported.append)
    monkeypatch.setattr(trial, "trial", lambda **arguments: pytest.fail("measured again"))
    (tmp_path / f"{trial.name(trial.PARAMETERS)}.json").write_text(json.dumps({"default": 0.5}))
    trial.main()
    assert reported == [{"default": 0.5}]


def images(count: int) -> PixelImages:
    return PixelImages(torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1), torch.arange(count), ["any"],
                       torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize(("count", "step", "first"), [(10, 3, 0), (10, 3, 2), (7, 7, 6), (5, 1, 0)])
def test_every_third_image(count, step, first):
    some = task.Every(images(count), step, first)
    assert _labels(some) == list(range(first, count, step))


@pytest.mark.parametrize(("count", "step"), [(10, 5), (11, 5), (12, 5), (10, 2)])
def test_candidates_are_judged_by_images_that_are_not_trained_on(count, step):
    training, judged = candidate.Training(images(count), step), task.Every(images(count), step)
    assert sorted(_labels(training) + _labels(judged)) == list(range(count))


def _labels(some: task.Every) -> list[int]:
    from onexn_plugins.training.data.images import Request

    return some[Request(0, list(range(len(some))))].labels.tolist()


def test_a_candidate_that_is_too_slow_scores_less_than_any_that_is_not():
    assert candidate.score(0.5, candidate.TARGET) == candidate.score(0.5, 9.0) == 0.5
    assert candidate.score(0.9, candidate.TARGET / 2) < candidate.score(0.7, candidate.TARGET)


def test_every_layer_belongs_to_one_part():
    from onexn_plugins.layers import prunable_layers

    network = task.dense_network()
    entries = candidate.config_list(network, candidate.uniform(0.75, 8))
    assert sorted(name for entry in entries for name in entry["op_names"]) == sorted(prunable_layers(network))
    assert all(entry["op_names"] and entry["block_size"] == 8 for entry in entries)


def test_suggestions_have_the_keys_that_candidates_take():
    tuned, listed = next(iter(Tpe(0))), next(iter(Listed()))
    assert tuned.keys() == listed.keys() == UNIFORM[0].keys()
    assert next(iter(Tpe(0))) == tuned != next(iter(Tpe(1)))


def test_a_search_goes_on_where_it_was_stopped(monkeypatch, tmp_path):
    """Candidates are made up; what is kept, told to the tuner and judged is not."""
    made, judged = [], []

    def made_up(dense, data, chosen, seed, beside):
        made.append(chosen)
        ratio = sum(chosen[f"{part}_ratio"] for part in candidate.PARTS)
        return {**chosen, "accuracy": 1 - ratio / 10, "faster": 2 * ratio, "default": ratio, "seed": seed}, None

    class Fabric:
        def setup_module(self, model):
            return model

    def evaluated(*words):
        judged.append(words)
        return type("Accuracy", (), {"top1": 0.5})

    monkeypatch.setattr(search, "candidate", made_up)
    monkeypatch.setattr(search, "engines", lambda network, images: {})
    monkeypatch.setattr(search, "start_fabric", Fabric)
    monkeypatch.setattr(search, "evaluate", evaluated)
    data = ImageData(images(4), images(4))
    whole = search.run(data, tmp_path / "whole.json", "", lambda line: None, trials=4)
    assert len(made) == 24
    made.clear()
    for trials in (2, 4):
        parts = search.run(data, tmp_path / "parts.json", "", lambda line: None, trials=trials)
    assert len(made) == 24
    assert parts["searches"] == whole["searches"]
    for one in parts["searches"]:
        found = search.best(one)
        assert found is None or found["held_out"] == 0.5
    assert 0 < len(judged) < 48
    assert "| 0 | TPE | 4 |" in page.search_markdown(parts)


def test_rows_are_means_over_seeds_and_differences_are_paired():
    def reported(pruner, ratio, seed, accuracy, **more):
        return {"status": "SUCCEEDED", "reported": {
            "pruner": pruner, "sparse_ratio": ratio, "seed": seed, "default": accuracy, "zero_weights": ratio,
            "macs": 1, "dense_macs": 2, "compiled_bytes": 3, "faster": 2.0, "onnxruntime_faster": 1.0, "speedup": 4.0,
            "cut_by": None, **more}}

    rows = page.comparison_rows([
        reported("dense", 0.0, 0, 0.7), reported("dense", 0.0, 1, 0.8), reported("dense", 0.0, 1, 0.8),
        reported("OneXNPruner", 0.75, 0, 0.6, block_size=4, rearrange=True),
        reported("OneXNPruner", 0.75, 1, 0.75, block_size=4, rearrange=True),
        reported("L1NormPruner", 0.75, 0, 0.65, cut_by="ModelSpeedup"),
        {"status": "FAILED", "reported": None}])
    assert [row["contender"] for row in rows] == ["dense", "1×4, rearranged, 75%", "filters cut, L1Norm, 75%"]
    assert [row["seeds"] for row in rows] == [2, 2, 1]
    assert rows[1]["against"] == "-7.5 (-10.0 to -5.0)"
    assert rows[2]["against"] == "-5.0"
    assert rows[2]["zeros"] is None


def test_the_page_says_what_the_results_say():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    for file, markdown in (("comparison", page.comparison_markdown), ("search", page.search_markdown)):
        path = HERE / "results" / f"{file}.json"
        if path.is_file():
            assert markdown(json.loads(path.read_text(encoding="utf-8"))) in text
