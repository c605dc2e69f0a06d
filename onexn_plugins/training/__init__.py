"""Training on labelled images: a recipe over Lightning Fabric's loop, with 1×N masks that stay.

    from onexn_plugins.training import Blocks, Recipe, read_data, train
    trained = train(model, read_data("imagenet"), Recipe(epochs=10), "runs/1x4", method=Blocks(pruning_ratio=0.75))
"""

from onexn_plugins.training.alternating import AlternatingBlocks
from onexn_plugins.training.data import read_data, read_evaluation
from onexn_plugins.training.data.zipped import read_zip
from onexn_plugins.training.distillation import Distilled
from onexn_plugins.training.evaluation import Accuracy, evaluate
from onexn_plugins.training.gradual import GradualBlocks
from onexn_plugins.training.loop import Trained, start_fabric, train
from onexn_plugins.training.methods import Blocks, Method
from onexn_plugins.training.recipe import Recipe
from onexn_plugins.training.repaired import RepairedBlocks

__all__ = ["Accuracy", "AlternatingBlocks", "Blocks", "Distilled", "GradualBlocks", "Method", "Recipe",
           "RepairedBlocks", "Trained", "evaluate", "read_data", "read_evaluation", "read_zip", "start_fabric", "train"]
