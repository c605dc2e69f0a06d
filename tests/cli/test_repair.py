"""`onexn repair` and `onexn evaluate` as a user types them."""

import json
import shutil
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from onexn_plugins.cli import main
from onexn_plugins.tvm_backend import inspect_module, inspect_onnx

NET = "tests.cli.test_repair:make_net"
SHAPE = ["--input-shape", "1,3,16,16"]


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(16, 6))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six classes of three photos each, and one file that is none."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in range(6):
        folder = root / f"class{label}"
        folder.mkdir()
        for number in range(3):
            pixels = generator.integers(0, 60, (20, 24, 3)) + 30 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (root / "class0" / "broken.jpg").write_bytes(b"no image")
    return str(root)


def values(capsys, *argv: str):
    code = main([*argv, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def test_repair_then_evaluate_the_weights_the_onnx_file_and_the_artefact(capsys, photos, tmp_path):
    weights, onnx, compiled = (str(tmp_path / name) for name in ("repaired.safetensors", "net.onnx", "net.onexn"))
    found = values(capsys, "repair", NET, *SHAPE, "--images", photos, "--output", weights)
    assert found["images"] == 18
    assert len(found["skipped"]) == 1
    assert found["sparsity"]["blocks"] == pytest.approx(0.5, abs=0.01)
    assert found["steps"][1]["kl"] <= found["steps"][0]["kl"]
    assert main(["export", NET, *SHAPE, "--weights", weights, "--output", onnx]) == 0
    assert main(["compile", onnx, "--output", compiled]) == 0
    capsys.readouterr()
    scored = [values(capsys, "evaluate", *each, *SHAPE, "--images", photos)
              for each in ([NET, "--weights", weights], [onnx], [compiled])]
    assert scored[0]["images"] == 18
    assert scored[0]["top1"]["low"] <= scored[0]["top1"]["value"] <= scored[0]["top1"]["high"]
    assert [each["top1"] for each in scored] == [scored[0]["top1"]] * 3
    assert [each["top5"] for each in scored] == [scored[0]["top5"]] * 3


def test_channels_and_blocks_for_a_core_that_is_not_here_become_a_network_in_onnx(capsys, photos, tmp_path):
    onnx = str(tmp_path / "net.onnx")
    options = ("--channels", "auto", "--speedup", "1.6", "--target", "cortex-a72")
    found = values(capsys, "repair", NET, *SHAPE, "--images", photos, *options, "--output", onnx)
    assert found["output"] == onnx
    assert set(found["channels"]) <= {"3"}
    dense, pruned = (sum(layer["dense_macs"] / layer["expected_speedup"] for layer in layers) for layers in (
        inspect_module(make_net(), torch.zeros(1, 3, 16, 16), target="cortex-a72"),
        inspect_onnx(onnx, target="cortex-a72")))
    assert 1.5 < dense / pruned < 2.0  # few blocks, and channels in fours
    assert values(capsys, "evaluate", onnx, *SHAPE, "--images", photos)["images"] == 18
    assert main(["repair", NET, *SHAPE, "--images", photos, *options, "--output", str(tmp_path / "w.pt")]) == 2
    assert "no longer fit" in capsys.readouterr().err


def test_the_latency_that_was_planned_stands_beside_the_one_measured(capsys, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("onexn_plugins.repair.latency.RATIOS", (0.0, 0.9))
    table = tmp_path / "table.json"
    found = values(capsys, "repair", NET, *SHAPE, "--images", photos, "--latency", "50", "--table", str(table),
                   "--no-rearrange")
    assert found["latency"]["planned_ms"] == 50
    assert 0 < found["latency"]["measured_ms"] < 50
    assert set(found["ratios"].values()) == {0.0}, "a generous budget takes nothing away"
    assert table.exists()


def test_repair_shows_its_steps(capsys, photos):
    assert main(["repair", NET, *SHAPE, "--images", photos, "--macs", "60000", "--no-rearrange"]) == 0
    text = capsys.readouterr().out
    assert "least squares" in text
    assert "18 images" in text
    assert "1 files could not be read" in text


@pytest.mark.parametrize(("argv", "message"), [
    (["repair", NET, "--images", "nowhere"], "is no folder"),
    (["repair", NET, "--images", "{photos}", "--pruning-ratio", "2"], "from 0 to 1"),
    (["repair", NET, "--images", "{photos}", "--macs", "5"], "cannot be met"),
    (["repair", NET, "--images", "{photos}", "--latency", "-1"], "latency_ms"),
    (["evaluate", NET, "--images", "nowhere"], "is no folder"),
    (["evaluate", "nothing.onnx", "--images", "{photos}"], "no such file"),
    (["evaluate", NET, "--images", "{photos}", "--limit", "0"], "--limit"),
])
def test_bad_arguments_are_refused(capsys, photos, argv, message):
    assert main([*(word.format(photos=photos) for word in argv), *SHAPE]) == 2
    assert message in capsys.readouterr().err


def test_a_class_the_model_does_not_know(capsys, photos, tmp_path):
    for label in range(8):
        (tmp_path / f"{label}").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "7" / "a.png")
    assert main(["evaluate", NET, *SHAPE, "--images", str(tmp_path)]) == 2
    assert "class 7" in capsys.readouterr().err


@pytest.mark.parametrize("count", [5, 7])
def test_another_number_of_class_folders_than_scores(capsys, tmp_path, count):
    for label in range(count):
        (tmp_path / f"{label}").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "0" / "a.png")
    assert main(["evaluate", NET, *SHAPE, "--images", str(tmp_path)]) == 2
    assert f"there are {count} class folders, and the model knows 6 classes" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["repair", "evaluate"])
@pytest.mark.parametrize("shape", ["1,3,16,24", "3,16"])
def test_photos_are_cut_to_squares_alone(capsys, photos, verb, shape):
    assert main([verb, NET, "--input-shape", shape, "--images", photos]) == 2
    assert "no shape of square images" in capsys.readouterr().err


def make_broken_net() -> nn.Module:
    net = make_net()
    nn.init.constant_(net[-1].bias, float("nan"))
    return net


def test_scores_that_are_no_numbers_are_refused(capsys, photos):
    assert main(["evaluate", f"{__name__}:make_broken_net", *SHAPE, "--images", photos]) == 2
    assert "NaN or infinite" in capsys.readouterr().err


def test_a_photo_whose_decoder_raises_what_it_likes_is_skipped(capsys, photos, tmp_path):
    """A header that asks for a hundred thousand million pixels: Pillow's error is of no kind that files raise."""
    shutil.copytree(photos, tmp_path / "photos")
    bomb = tmp_path / "photos" / "class1" / "bomb.bmp"
    side = 300_000
    bomb.write_bytes(struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 1, 1, 0, 0))
    for verb in ("repair", "evaluate"):
        skipped = values(capsys, verb, NET, *SHAPE, "--images", str(tmp_path / "photos"))["skipped"]
        assert [name for name, _ in skipped] == [str(tmp_path / "photos" / "class0" / "broken.jpg"), str(bomb)]


def test_the_checkpoint_of_a_repair_scores_as_its_weights(capsys, photos, tmp_path):
    weights, checkpoint = str(tmp_path / "repaired.safetensors"), str(tmp_path / "checkpoint.safetensors")
    found = values(capsys, "repair", NET, *SHAPE, "--images", photos, "--output", weights, "--checkpoint", checkpoint)
    again = values(capsys, "repair", NET, *SHAPE, "--images", photos, "--output", weights, "--checkpoint", checkpoint)
    assert found == again
    one, other = (values(capsys, "evaluate", NET, *SHAPE, "--weights", file, "--images", photos)
                  for file in (weights, checkpoint))
    assert one == other
