"""Toolkits that cut channels learn to refuse masked models, whether or not the user imported our adapter for them.

A masked layer refuses to be cut by itself (`masking.py`), but a structural pruner that comes to it has cut others
before. So the toolkit is told as soon as it and a mask are in use together: when a mask is attached, or when a masked
layer runs, which building a dependency graph cannot do without. The core still imports no toolkit of its own accord.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

import torch

# Toolkit -> the module of its adapter whose guard_masked_models() tells it.
GUARDS = {"torch_pruning": "onexn_plugins.torch_pruning.order"}
_told: set[str] = set()


def guard_masked_models() -> None:
    """Tell every toolkit in use that was not told yet; costs nothing where there is none."""
    if torch.compiler.is_compiling():
        return
    for toolkit, adapter in GUARDS.items():
        if toolkit not in _told and sys.modules.get(toolkit) is not None:
            _told.add(toolkit)
            with contextlib.suppress(Exception):  # a version the adapter does not know: the masked layers refuse late
                importlib.import_module(adapter).guard_masked_models()
