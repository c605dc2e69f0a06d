"""NNI experiments from start to end: checked, watched, stopped, and their trials kept."""

from onexn_plugins.nni.experiment.load import load_experiment
from onexn_plugins.nni.experiment.page import to_page
from onexn_plugins.nni.experiment.results import ExperimentResult, Trial
from onexn_plugins.nni.experiment.run import run_experiment

__all__ = ["ExperimentResult", "Trial", "load_experiment", "run_experiment", "to_page"]
