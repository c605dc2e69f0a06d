"""Pruned networks that still work, without labels: from a few hundred images and CPU minutes.

images.py         whatever holds images, as batches
lockstep.py       a network run on all batches side by side, layer by layer
abreast.py        as many batches at a time as memory holds
replay.py         a forward once more from the middle
surroundings.py   the batch norm and the sum behind each layer
moments.py        second moments of what a layer reads
importance.py     what an error in each output channel means to the network's outputs
elimination.py    which blocks a layer misses least, and what each costs
least_squares.py  the best weights on the blocks that stay
damping.py        how far they are held back, by images left out
survey.py         both for every layer of the dense network
budget.py         ratios for a budget, by dynamic programming; plan.py, prices.py, latency.py, modelled.py
sequential.py     each layer corrected on what really reaches it
statistics.py     batch norms re-estimated
distillation.py   trained on the dense network's outputs and feature maps; views.py, features.py
channels.py       whole hidden channels; together.py plans them with the blocks, thinning.py takes them out
stages.py         the stages, on the copy that work.py holds; resume.py goes on with them, commit.py takes them over
run.py            repair()
score.py          the elimination as a score for the pruners
"""

from onexn_plugins.repair.plan import Budget, plan_ratios
from onexn_plugins.repair.result import Repaired, Step
from onexn_plugins.repair.run import repair

__all__ = ["Budget", "Repaired", "Step", "plan_ratios", "repair"]
