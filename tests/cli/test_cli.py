"""The command line as a user types it: main(argv), what it prints and its exit code."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from onexn_plugins.cli import VERBS, main
from onexn_plugins.export import read_pattern
from onexn_plugins.report import Column, Page, Section, Table, save
from tests.tvm_backend.onnx_files import make_model

NET = "tests.cli.test_cli:make_net"
SHAPE = ["--input-shape", "1,3,16,16"]


def make_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 32, 1), nn.ReLU(),
                         nn.Conv2d(32, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def values(capsys, *argv: str):
    code, out, err = run(capsys, *argv, "--json")
    assert code == 0, err
    assert err == ""
    return json.loads(out)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[str, str]:
    """Weights and ONNX of the net pruned at 75 %, made on the command line."""
    folder = tmp_path_factory.mktemp("cli")
    weights, path = str(folder / "pruned.safetensors"), str(folder / "pruned.onnx")
    assert main(["prune", NET, *SHAPE, "--pruning-ratio", "0.75", "--rearrange", "--output", weights]) == 0
    assert main(["export", NET, *SHAPE, "--weights", weights, "--output", path]) == 0
    return weights, path


def test_prune_export_and_inspect_tell_the_same_story(capsys, exported):
    weights, path = exported
    report = values(capsys, "inspect", NET, *SHAPE, "--weights", weights)
    kept = {layer["name"]: layer["kept"] / layer["blocks"] for layer in report["layers"]}
    assert kept == {"0": 1.0, "3": 1.0, "4": 0.25, "6": 0.25, "9": 1.0}
    assert report["macs"] < report["dense_macs"]
    recorded = {entry["layer"]: entry["kept"] / entry["blocks"] for entry in read_pattern(onnx.load(path)).values()}
    assert recorded == {"4": 0.25, "6": 0.25}
    in_file = {tuple(layer["shape"]): layer["kept"] for layer in values(capsys, "inspect", path)["layers"]}
    assert in_file[(32, 16, 1, 1)] == in_file[(16, 32, 3, 3)] == 0.25
    code, out, _ = run(capsys, "inspect", path)
    assert code == 0
    assert "32×16×1×1" in out


def test_inspect_tells_the_speed_up_to_expect_on_a_target(capsys, exported):
    weights, path = exported
    plan = values(capsys, "inspect", NET, *SHAPE, "--weights", weights, "--target", "cortex-a72")["plan"]
    assert plan == values(capsys, "inspect", path, "--target", "cortex-a72")["layers"]
    for layer in plan:
        assert layer["expected_speedup"] == (pytest.approx(1 / layer["kept"], rel=0.3) if layer["sparse"] else 1)
    assert sum(layer["sparse"] for layer in plan) == 2
    _, out, _ = run(capsys, "inspect", NET, *SHAPE, "--weights", weights, "--target", "host")
    assert "expected speed-up" in out
    assert "dense: no zero kernel" in out


def test_prune_reports_the_rearrangement_and_respects_its_options(capsys, tmp_path):
    report = values(capsys, "prune", NET, *SHAPE, "--rearrange", "--block-size", "8", "--ignore", "4", "--full")
    kept = {layer["name"]: layer["kept"] / layer["blocks"] for layer in report["layers"]}
    assert kept["4"] == 1.0
    assert kept["6"] == kept["9"] == 0.5
    moved = report["rearrangement"]
    assert moved["retained_after"] >= moved["retained_before"]
    assert moved["max_error"] < 1e-9
    drawn = [values(capsys, "prune", NET, *SHAPE, "--importance", "random", "--seed", seed) for seed in "112"]
    assert drawn[0] == drawn[1]


def test_rearrange_tells_what_moved_and_saves_it(capsys, tmp_path):
    path = str(tmp_path / "moved.safetensors")
    report = values(capsys, "rearrange", NET, *SHAPE, "--ignore", "6", "--output", path)
    assert [layer["name"] for layer in report["layers"]] == ["4"]
    assert report["retained_after"] >= report["retained_before"]
    again = values(capsys, "rearrange", NET, *SHAPE, "--weights", path, "--ignore", "6", "--method", "sort")
    assert again["retained_before"] == pytest.approx(report["retained_after"])
    code, out, _ = run(capsys, "rearrange", NET, *SHAPE)
    assert code == 0
    assert "proved equal" in out


def test_report_draws_the_numbers_of_a_json(capsys, tmp_path):
    numbers, html = tmp_path / "report.json", tmp_path / "report.html"
    table = Table((Column("name", "network"), Column("ms", "median", "milliseconds")), ({"name": "tiny", "ms": 1.5},))
    save(Page("A report", "of one number", (Section("Latency", table=table),)), numbers)
    code, out, _ = run(capsys, "report", str(numbers))
    assert code == 0
    assert "1.50 ms" in out
    assert values(capsys, "report", str(numbers), "--output", str(html))["output"] == str(html)
    assert "1.50 ms" in html.read_text()


def test_compile_run_and_bench(capsys, exported, tmp_path):
    _, path = exported
    library, image, output = str(tmp_path / "net.onexn"), str(tmp_path / "x.npy"), str(tmp_path / "y.npz")
    assert values(capsys, "compile", path, "--output", library)["bytes"] > 0
    array = torch.randn(1, 3, 16, 16).numpy()
    np.save(image, array)
    compared = values(capsys, "run", path, "--input", image, "--compare", "--output", output)
    assert compared["difference"] < 1e-4
    again = values(capsys, "run", library, "--input", image)
    assert again["outputs"][0]["mean"] == pytest.approx(compared["outputs"][0]["mean"], abs=1e-5)
    assert np.load(output)["arr_0"].shape == (1, 10)
    rows = {row["name"]: row for row in values(capsys, "bench", path, "--rounds", "2")["contenders"]}
    assert set(rows) == {"onexn", "onnxruntime"}
    assert rows["onexn"]["speedup"] == 1.0
    assert all(row["median_ms"] > 0 for row in rows.values())
    profiled = values(capsys, "bench", library, "--rounds", "2", "--profile")
    assert [row["name"] for row in profiled["contenders"]] == ["onexn"]
    assert sum(kernel["share"] for kernel in profiled["profile"]["kernels"]) == pytest.approx(1)


def test_inspect_and_compile_name_the_algorithm(capsys, tmp_path):
    path, library = tmp_path / "wide.onnx", tmp_path / "wide.onexn"
    dense = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    sparse = dense * (np.arange(64) % 2).astype(np.float32)[:, None, None]  # reads every other channel
    nodes = [onnx.helper.make_node("Conv", ["x", "dense"], ["h"], pads=[1] * 4),
             onnx.helper.make_node("Conv", ["h", "sparse"], ["y"], pads=[1] * 4)]
    model = make_model(nodes, {"x": (1, 64, 28, 28)}, ["y"], {"dense": dense, "sparse": sparse})
    path.write_bytes(model.SerializeToString())
    reasons = {target: [layer["reason"] for layer in values(capsys, "inspect", str(path), "--target", target)["layers"]]
               for target in ("x86-64-v4", "cortex-a72")}
    assert reasons["x86-64-v4"][0] == "no zero kernel, by Winograd's algorithm, F(4×4, 3×3)"
    assert reasons["cortex-a72"][0] == "no zero kernel, by Winograd's algorithm, F(2×2, 3×3)"
    assert reasons["x86-64-v4"][1].endswith("blocks are kept, by Winograd's algorithm, F(4×4, 3×3)")
    compiled = values(capsys, "compile", str(path), "--target", "x86-64-v4", "--output", str(library))
    assert [layer["reason"] for layer in compiled["layers"]] == reasons["x86-64-v4"]


def test_tune_and_what_reads_its_database(capsys, exported, tmp_path):
    _, path = exported
    database, library = str(tmp_path / "tuning.json"), str(tmp_path / "net.onexn")
    assert values(capsys, "tune", path, "--database", database, "--trials", "1", "--seconds", "0")["finished"] is False
    report = values(capsys, "tune", path, "--database", database, "--trials", "1")
    assert report["finished"] is True
    assert all(found["tried"] <= 1 for found in report["problems"])
    code, out, err = run(capsys, "tune", path, "--database", database, "--trials", "1")
    assert code == 0
    assert f"stored in {database}" in out
    assert "tuning" in err
    for verb in (["compile", path, "--output", library], ["inspect", path]):
        layers = values(capsys, *verb, "--tuning", database)["layers"]
        assert any("tuned:" in layer["reason"] for layer in layers)
    assert values(capsys, "run", path, "--tuning", database, "--compare")["difference"] < 1e-4
    assert values(capsys, "bench", path, "--tuning", database, "--rounds", "1")["contenders"]
    code, _, err = run(capsys, "run", library, "--tuning", database)
    assert code == 2
    assert "comes too late" in err


@pytest.mark.parametrize(("argv", "message"), [
    (["prune", "no_such_model"], "neither torchvision nor timm"),
    (["prune", NET, *SHAPE, "--pruning-ratio", "1.5"], "from 0 to 1"),
    (["prune", NET, *SHAPE, "--block-size", "0"], "block_size must be"),
    (["prune", NET, *SHAPE, "--block-size", "33"], "from 1 to 32"),
    (["prune", NET, *SHAPE, "--ignore", "nine"], "no layer of this name"),
    (["prune", NET, "--input-shape", "1,5,16,16"], "forward fails"),
    (["prune", "net.onnx"], "needs a torch model"),
    (["prune", NET, *SHAPE, "--output", "none/such.safetensors"], "folder does not exist"),
    (["export", NET, *SHAPE, "--output", "none/such.onnx"], "folder does not exist"),
    (["export", NET, *SHAPE, "--weights", "none.pt", "--output", "a.onnx"], "no such file"),
    (["inspect", "missing.onnx"], "missing.onnx"),
    (["inspect", NET, *SHAPE, "--target", "cortex-z9"], "cortex-z9"),
    (["compile", "missing.onnx", "--output", "a.onexn"], "missing.onnx"),
    (["run", "missing.onexn"], "missing.onexn"),
    (["bench", "missing.onnx"], "missing.onnx"),
    (["rearrange", NET, *SHAPE, "--block-size", "-4"], "block_size must be"),
    (["report", "missing.json"], "missing.json"),
])
def test_bad_input_exits_with_2_one_line_and_no_file(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_onnx_is_refused_everywhere(capsys, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("not a model")
    for argv in (["inspect", str(path)], ["run", str(path)], ["bench", str(path)],
                 ["compile", str(path), "--output", str(tmp_path / "a.onexn")]):
        code, _, err = run(capsys, *argv)
        assert code == 2
        assert "net.onnx" in err
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_unknown_targets_and_options_exit_with_2(capsys, exported, tmp_path):
    code, _, err = run(capsys, "compile", exported[1], "--target", "cortex-z9", "--output", str(tmp_path / "a.onexn"))
    assert code == 2
    assert "cortex-z9" in err
    for argv in (["prune"], ["prune", NET, "--input-shape", "one"], ["fly"]):
        with pytest.raises(SystemExit) as exit_info:
            main(argv)
        assert exit_info.value.code == 2


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__.rpartition(".")[2])
def test_every_verb_shows_an_example(capsys, verb):
    with pytest.raises(SystemExit) as exit_info:
        main([verb.__name__.rpartition(".")[2], "--help"])
    assert exit_info.value.code == 0
    assert verb.EXAMPLE in capsys.readouterr().out


def test_the_console_script_is_installed():
    result = subprocess.run([sys.executable, "-c", "from onexn_plugins.cli import main; raise SystemExit(main())",
                             "--help"], capture_output=True, text=True, check=True)
    assert "prune" in result.stdout
