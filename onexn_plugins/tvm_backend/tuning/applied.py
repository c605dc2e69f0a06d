"""What a database says about the layers of a network that is being compiled."""

from __future__ import annotations

import os

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.problem import Choice
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.planning.plan import Decision
from onexn_plugins.tvm_backend.processors import Target
from onexn_plugins.tvm_backend.tuning.database import Database, Entry, Machine
from onexn_plugins.tvm_backend.tuning.decision import winner
from onexn_plugins.tvm_backend.tuning.problem import kept_shares, problem_of


class Tuning:
    """The answers of a database for one machine."""

    def __init__(self, database: Database, machine: Machine) -> None:
        self._database, self._machine = database, machine

    @classmethod
    def read(cls, path: str | os.PathLike[str], target: Target, threads: int) -> Tuning:
        """The answers for a target.

        Raises:
            OneXNError: the file cannot be used, or knows nothing about this target on so many threads.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise OneXNError("tuning", f"must be a path, got {type(path).__name__}", "Name a file `onexn tune` wrote")
        database, machine = Database.read(os.fspath(path)), Machine.of(target, threads)
        known = {entry.machine for entry in database.entries}
        if machine not in known:
            raise OneXNError(str(path), f"was tuned for {', '.join(sorted(map(str, known))) or 'nothing'}, not for "
                             f"{machine}", f"Run onexn tune --target {target.name}, or compile without tuning")
        return cls(database, machine)

    def apply(self, request: Request, decision: Decision, default: Choice) -> tuple[Decision, Choice]:
        """The decision and choice to compile with, given those that would be taken without tuning."""
        entry = self._database.find(self._machine, problem_of(request), default)
        if entry is None:
            return decision, default
        choice, reason = entry.choice, f"tuned: {_reason(entry)}"
        if choice.sparse == default.sparse and choice.tile.block_size == default.tile.block_size:
            return Decision(decision.sparse, decision.block_size, decision.kept, f"{decision.reason}; {reason}"), choice
        size = choice.tile.block_size
        share = kept_shares(request.first).get(size, 1.0)
        told = f"{share:.0%} of the 1×{size} blocks are kept" if share < 1 else "no zero kernel"
        return Decision(choice.sparse, size, share if choice.sparse else 1.0, f"{told}; {reason}"), choice


def _reason(entry: Entry) -> str:
    best = winner(entry.trials)
    if best is None:
        tried = len({trial.choice for trial in entry.trials})
        return f"{entry.default} is not beaten by {tried} others" if tried else f"{entry.default} has no rivals"
    return f"{best.choice} takes {best.ratio:.0%} of the time of {entry.default}"
