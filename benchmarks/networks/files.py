"""ONNX files of a network in an opset, by each tool that can be asked for one."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from onnx import ModelProto, version_converter
from torch import Tensor, nn

from onexn_plugins.errors import first_line
from onexn_plugins.export import onnx_bytes
from onexn_plugins.tvm_backend.reading.onnx_model import opset_of

OPSETS = (11, 13, 15, 17, 19, 21)


class NoFile(Exception):
    """The tool cannot make a valid file of this opset; the message is what it said."""


def in_opset(model: nn.Module, image: Tensor, opset: int, tool: str) -> bytes:
    """The network as a valid ONNX file of that opset.

    Raises:
        NoFile: the tool cannot.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.ERROR)
            file = TOOLS[tool](model, image, opset)
        onnx.checker.check_model(file)
    except Exception as error:  # whatever a tool raises
        raise NoFile(first_line(error)) from error
    finally:
        logging.disable(logging.NOTSET)
    if opset_of(file) != opset:
        raise NoFile(f"writes opset {opset_of(file)} instead")
    return file.SerializeToString()


def _torchscript(model: nn.Module, image: Tensor, opset: int) -> ModelProto:
    """torch's older exporter, through TorchScript."""
    with tempfile.TemporaryDirectory(prefix="onexn-opset-") as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(model, (image,), path, dynamo=False, opset_version=opset)
        return onnx.load(path)


def _dynamo(model: nn.Module, image: Tensor, opset: int) -> ModelProto:
    """torch's newer exporter, through torch.export."""
    program = torch.onnx.export(model, (image,), dynamo=True, opset_version=opset, verbose=False)
    assert program is not None
    return program.model_proto


def _converter(model: nn.Module, image: Tensor, opset: int) -> ModelProto:
    """export_onnx's file, brought to the opset by onnx.version_converter."""
    return version_converter.convert_version(onnx.load_model_from_string(onnx_bytes(model, image)), opset)


TOOLS: dict[str, Callable[[nn.Module, Tensor, int], ModelProto]] = {
    "torchscript": _torchscript, "dynamo": _dynamo, "converter": _converter}
# Asked for an older opset, torch's newer exporter writes this one.
OLDEST = {"dynamo": 18}
