"""Labelled images: a folder per class, on disk or in a zip."""

import os
from pathlib import Path

from onexn_plugins.training.data.folder import read_folder, read_held_out
from onexn_plugins.training.data.images import ImageData, Images
from onexn_plugins.training.data.zipped import read_zip

__all__ = ["ImageData", "Images", "read_data", "read_evaluation"]


def read_data(path: str | os.PathLike[str], *, pixels: int = 224, seed: int = 0) -> ImageData:
    """A zip by `read_zip`, where images are of one size and keep it, or a folder by `read_folder`.

    Raises:
        OneXNError: whatever is missing or does not fit.
    """
    return read_zip(path, seed=seed) if Path(path).suffix == ".zip" else read_folder(path, pixels=pixels, seed=seed)


def read_evaluation(path: str | os.PathLike[str], *, pixels: int = 224) -> Images:
    """The held-out images of a zip or folder alone; a folder may hold its class folders directly.

    Raises:
        OneXNError: whatever is missing or does not fit.
    """
    return read_zip(path).held_out if Path(path).suffix == ".zip" else read_held_out(path, pixels=pixels)
