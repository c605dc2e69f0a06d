"""The networks by task, with inputs small enough for all of them to be measured in an hour."""

from __future__ import annotations

from dataclasses import dataclass

_PUBLISHED = "benchmarks.networks.published."


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        name: of the network, in the table.
        task: what it is for.
        model: as onexn_plugins.zoo.load_model takes it.
        shape: of its input.
        full: its linear layers are pruned, too: most of its weights are there.
    """

    name: str
    task: str
    model: str
    shape: tuple[int, ...]
    full: bool = False


def _own(name: str, task: str, module: str, shape: tuple[int, ...], full: bool = False) -> Task:
    return Task(name, task, f"{_PUBLISHED}{module}:{name}", shape, full)


def _image(size: int) -> tuple[int, int, int, int]:
    return (1, 3, size, size)


TASKS = {task.name: task for task in (
    Task("mobilenet_v1", "classification", "mobilenet_v1", _image(224)),
    Task("mobilenet_v2", "classification", "mobilenet_v2", _image(224)),
    Task("mobilenet_v3_large", "classification", "mobilenet_v3_large", _image(224)),
    Task("mobilenet_v3_small", "classification", "mobilenet_v3_small", _image(224)),
    Task("ghostnet", "classification", "timm/ghostnet_100", _image(224)),
    Task("mobilevit_xxs", "classification", "timm/mobilevit_xxs", _image(256)),
    Task("mobilevit_xxs, linear layers too", "classification", "timm/mobilevit_xxs", _image(256), full=True),
    Task("fastvit_t8", "classification", "timm/fastvit_t8", _image(256)),
    Task("convnext_atto", "classification", "timm/convnext_atto", _image(224), full=True),
    Task("vit_tiny", "classification", "timm/vit_tiny_patch16_224", _image(224), full=True),
    _own("yolov8n", "detection", "detection", _image(320)),
    _own("ssdlite", "detection", "detection", _image(320)),
    _own("blazeface", "detection", "detection", _image(128)),
    _own("unet_bilinear", "segmentation", "segmentation", _image(128)),
    _own("lraspp", "segmentation", "segmentation", _image(224)),
    _own("edsr", "restoration", "restoration", _image(48)),
    _own("style_transfer", "restoration", "restoration", _image(128)),
    _own("crnn", "text", "sequences", (1, 1, 32, 128)),
    _own("svtr", "text", "sequences", (1, 3, 32, 128), full=True),
    _own("ds_cnn", "audio", "sequences", (1, 1, 49, 10)),
    _own("conformer", "audio", "sequences", (1, 1, 80, 200), full=True),
    _own("hrnet", "keypoints", "keypoints", _image(128)),
    _own("unet", "segmentation", "segmentation", _image(128)),
    _own("deeplabv3", "segmentation", "segmentation", _image(224)),
    _own("tcn", "audio", "sequences", (1, 16, 200)),
    _own("m5", "audio", "sequences", (1, 1, 16000)),
    _own("simple_baseline", "keypoints", "keypoints", _image(128)),
)}
