"""Labelled images: a folder per class, on disk or in a zip."""

from onexn_plugins.training.data.images import IGNORED, Batch, ImageData, Images, Request, loader

__all__ = ["IGNORED", "Batch", "ImageData", "Images", "Request", "loader"]
