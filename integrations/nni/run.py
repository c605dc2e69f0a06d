"""Run experiment.yaml on this machine and print its table: what `onexn experiment experiment.yaml` does."""

from pathlib import Path

from onexn_plugins.nni import run_experiment

print(run_experiment(Path(__file__).with_name("experiment.yaml"), progress=print).table)
