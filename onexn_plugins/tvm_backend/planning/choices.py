"""What is known better than the cost model."""

from __future__ import annotations

from typing import Protocol

from onexn_plugins.tvm_backend.kernels.problem import Choice
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.planning.plan import Decision


class Choices(Protocol):
    """The answers of a tuning database."""

    def apply(self, request: Request, decision: Decision, default: Choice) -> tuple[Decision, Choice]:
        """The decision and choice to compile with, given those that would be taken otherwise."""
