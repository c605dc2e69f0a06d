"""Rearrangement: moves channels so that 1×N pruning keeps more, and proves that the function stays as it was.

spaces.py    which tensor dimensions move together
tracing/     finds them in any eager model (channel labels)
norms.py     kernel norms, and what a block mask keeps of them
search.py    the order of the channels: sort (the paper's) or swap (swap.py, assignment.py)
branches.py  layers that run in training alone
proof.py     float64 probe: before = after
apply.py     moves the channels
applied.py   which moves a model went through
run.py       rearrange()
"""

from onexn_plugins.rearrangement.applied import applied_moves, applied_permutations
from onexn_plugins.rearrangement.apply import Move, apply_moves
from onexn_plugins.rearrangement.proof import Proof, prove
from onexn_plugins.rearrangement.run import LayerRearrangement, Rearrangement, rearrange
from onexn_plugins.rearrangement.spaces import Member, Space, check_spaces
from onexn_plugins.rearrangement.tracing import find_spaces

__all__ = ["LayerRearrangement", "Member", "Move", "Proof", "Rearrangement", "Space", "applied_moves",
           "applied_permutations", "apply_moves", "check_spaces", "find_spaces", "prove", "rearrange"]
