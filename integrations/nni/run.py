"""Run experiment.yaml on this machine: start, wait, collect, stop, print a table.

Exit code 1 if a trial failed, 2 if the experiment did.

    python run.py
    python run.py --max-trials 3 --directory experiments --json results.json
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nni.experiment import Experiment, ExperimentConfig
from requests.exceptions import RequestException

HERE = Path(__file__).resolve().parent
STARTS = 5
POLL_SECONDS = 2.0
TRIALS = Path("environments/local-env/trials")  # inside NNI's directory of an experiment
UNFINISHED = ("WAITING", "RUNNING", "UNKNOWN")
COLUMNS = ("pruner", "block_size", "sparse_ratio", "zero_weights", "dense_accuracy", "default")


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes:
        id, status: NNI's; SUCCEEDED, FAILED, ...
        directory: where its trial.stdout and trial.stderr are.
        reported: the trial's own final metric, which says what it ran; None if it reported nothing.
    """

    id: str
    status: str
    directory: str
    reported: dict[str, Any] | None

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCEEDED" and self.reported is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def load_config(path: Path, directory: Path | None, max_trials: int | None) -> ExperimentConfig:
    """The experiment of a YAML file, its trials run by this very Python."""
    config = ExperimentConfig.load(str(path))
    command = config.trial_command.split(maxsplit=1)
    if command[0] in ("python", "python3"):
        config.trial_command = " ".join([f'"{sys.executable}"', *command[1:]])
    if directory is not None:
        config.experiment_working_directory = str(directory)
    if max_trials is not None:
        config.max_trial_number = max_trials
    return config


def start(config: ExperimentConfig, port: int | None) -> Experiment:
    """A started experiment. NNI's server may be slow to come up and then refuses the connection: it is tried again."""
    for attempt in range(1, STARTS + 1):
        experiment = Experiment(config)
        try:
            experiment.start(port or free_port())
        except (RequestException, RuntimeError) as error:  # RuntimeError: the port was taken meanwhile
            experiment.stop()
            if attempt == STARTS:
                raise
            print(f"start {attempt} of {STARTS} failed ({error}), trying again", file=sys.stderr)
        except BaseException:
            experiment.stop()
            raise
        else:
            return experiment
    raise AssertionError("unreachable: the last attempt returns or raises")


def wait(experiment: Experiment, timeout: float) -> None:
    """Until no trial is left.

    Raises:
        RuntimeError: NNI says that the experiment failed.
        TimeoutError: it takes longer than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not finished(experiment):
        if time.monotonic() > deadline:
            raise TimeoutError(f"experiment {experiment.id} is {experiment.get_status()} after {timeout:.0f} s")
        time.sleep(POLL_SECONDS)


def finished(experiment: Experiment) -> bool:
    """NNI says DONE at maxTrialNumber, but stays at TUNER_NO_MORE_TRIAL where the search space ends earlier."""
    status = experiment.get_status()
    if status == "ERROR":
        raise RuntimeError(f"experiment {experiment.id} failed, see its log directory")
    if status == "TUNER_NO_MORE_TRIAL":
        return all(job.status not in UNFINISHED for job in experiment.list_trial_jobs())
    return status in ("DONE", "STOPPED")


def collect(experiment: Experiment) -> list[Trial]:
    """What each trial says it ran. NNI's own parameter column is not used: it may belong to another trial."""
    jobs = sorted(experiment.list_trial_jobs(), key=lambda job: job.sequenceId)
    directory = Path(experiment.config.experiment_working_directory).expanduser() / experiment.id / TRIALS
    return [Trial(job.trialJobId, job.status, str(directory / job.trialJobId),
                  job.finalMetricData[0].data if job.finalMetricData else None) for job in jobs]


def run(config: ExperimentConfig, *, port: int | None = None, timeout: float = 1800.0) -> list[Trial]:
    """All trials of the experiment; it is stopped whatever happens."""
    experiment = start(config, port)
    try:
        wait(experiment, timeout)
        return collect(experiment)
    finally:
        experiment.stop()


def table(trials: list[Trial]) -> str:
    """Succeeded trials in columns, the failed ones below by id."""
    rows = [COLUMNS]
    for trial in trials:
        if trial.succeeded and trial.reported is not None:
            rows.append(tuple(_cell(trial.reported[column]) for column in COLUMNS))
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"trial {trial.id}: {trial.status}, see {trial.directory}/trial.stderr"
              for trial in trials if not trial.succeeded]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / "experiment.yaml")
    parser.add_argument("--directory", type=Path, help="where logs and results go (default: ~/nni-experiments)")
    parser.add_argument("--port", type=int, help="of NNI's server and web page (default: a free one)")
    parser.add_argument("--max-trials", type=int)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for the whole experiment")
    parser.add_argument("--json", type=Path, help="also write the trials to this file")
    options = parser.parse_args()
    config = load_config(options.config, options.directory, options.max_trials)
    try:
        trials = run(config, port=options.port, timeout=options.timeout)
    except (RequestException, RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=2) + "\n")
    print(table(trials))
    return 0 if trials and all(trial.succeeded for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
