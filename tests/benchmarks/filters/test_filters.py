"""The table of networks whose filters are cut."""

from __future__ import annotations

import json

from benchmarks.filters.__main__ import NETWORKS, RESULTS
from benchmarks.filters.network import cut
from benchmarks.filters.page import README, table

WANTED = {"timm/efficientnet_lite0", "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "resnet50",
          "densenet121", "googlenet", "shufflenet_v2_x1_0", "regnet_x_400mf", "convnext_tiny"}


def test_the_readme_shows_the_committed_results():
    data = json.loads(RESULTS.read_text())
    assert table(data) in README.read_text()
    assert {row["network"] for row in data["networks"]} == set(NETWORKS) >= WANTED
    for row in data["networks"]:
        assert row["cut_by"] in ("ModelSpeedup", "torch-pruning", "neither"), row
        assert row["cut_by"] == "ModelSpeedup" or row["reason"], row
        assert row["cut_by"] == "neither" or (row["learns"] and row["parameters_after"] < row["parameters_before"]), row


def test_a_network_is_cut_as_the_table_says():
    row = cut("mobilenet_v3_small")
    committed = next(entry for entry in json.loads(RESULTS.read_text())["networks"]
                     if entry["network"] == "mobilenet_v3_small")
    assert row == committed
