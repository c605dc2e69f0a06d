"""`run_experiment`: start, watch, collect, stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.nni.experiment.config import Checked, read_config
from onexn_plugins.nni.experiment.logs import disk_is_full, no_room
from onexn_plugins.nni.experiment.manager import EVERYWHERE, LOOPBACK, Manager, check_listen, check_port, start
from onexn_plugins.nni.experiment.quiet import quiet
from onexn_plugins.nni.experiment.results import CANCELLED, RESULT_FILE, ExperimentResult, read_trials
from onexn_plugins.nni.experiment.watching import Interrupted, signals_raise, wait

PACKAGES = ("onexn-plugins", "nni", "torch", "torch-pruning", "apache-tvm", "onnxruntime")


def run_experiment(
    config: Any,
    *,
    directory: str | os.PathLike[str] | None = None,
    max_trials: int | None = None,
    timeout: float | None = None,
    port: int | None = None,
    listen: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> ExperimentResult:
    """Run an NNI experiment from start to end; nothing of it is left running, however it ends.

    A signal (Ctrl-C, SIGTERM, SIGHUP) ends the experiment, and the result says so: finished trials are kept.

    Args:
        config: the experiment's YAML file, the mapping that such a file holds, or an nni ExperimentConfig. `python` in
            a trial's command is this very Python where the trial runs on this machine.
        directory: where NNI keeps its experiments, in place of the configuration's (default ~/nni-experiments).
        max_trials: in place of maxTrialNumber. Where a grid has more points than that, its pruners take turns.
        timeout: seconds for the whole experiment; None waits as long as maxExperimentDuration says.
        port: of NNI's page and REST; a free one by default.
        listen: the address those listen on; by default this machine's loopback, and all addresses only where trials
            run on other machines, which have to reach it. There is no password.
        progress: told in words what happens.

    Returns:
        Its trials, how it ended (`ended`, `reason`), a `table`; the same stands as JSON in the experiment's folder.

    Raises:
        OneXNError: the configuration cannot be run, found before anything starts; or NNI does not start, with the
            reason that its log gives.
    """
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0):
        raise OneXNError("timeout", f"must be a positive number of seconds, got {timeout!r}", "Leave it out for none")
    with quiet():
        checked = read_config(config, directory=directory, max_trials=max_trials)
    if port is not None:
        check_port(port)
    address = check_listen(listen or (LOOPBACK if checked.only_here else EVERYWHERE))
    began, started = time.monotonic(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    with signals_raise():
        manager: Manager | None = None
        killed: tuple[str, ...] = ()
        try:
            known = {"name": _name(checked), "record": _record(checked, started)}
            deadline = began + (timeout or float("inf"))
            manager = start(checked, port, address, known, progress, deadline)
            progress(_where(manager, address))
            ended, reason = wait(manager, deadline, progress)
        except Interrupted as interruption:
            if manager is None:
                raise KeyboardInterrupt from interruption  # nothing had begun, and nothing is left
            ended, reason = str(interruption), f"stopped by {interruption}"
        finally:
            if manager is not None:
                killed = _killed(manager)
                manager.stop()
        assert manager is not None
        record = _record(checked, started) | {"seconds": round(time.monotonic() - began, 1)}
        return _collected(manager, checked, ended, reason, record, killed)


def _killed(manager: Manager) -> tuple[str, ...]:
    """Trials that ended by a signal which was not ours."""
    try:
        return tuple(trial.id for trial in read_trials(manager.directory, over=False) if trial.status in CANCELLED)
    except OneXNError:  # nothing may keep the manager from being stopped
        return ()


def _collected(manager: Manager, checked: Checked, ended: str, reason: str, record: dict[str, Any],
               killed: tuple[str, ...]) -> ExperimentResult:
    trials = read_trials(manager.directory, killed=killed)
    if no_room(manager.directory) and ended == "done":  # by what NNI remembers, which it could not write down
        ended = "failed"
    if ended != "done" and disk_is_full(manager.directory) and "disk is full" not in reason:
        reason = "; ".join(filter(None, (reason, "the disk is full")))
    result = ExperimentResult(manager.id, _name(checked), str(manager.directory),
                              ended, reason, trials, record)
    try:
        result.save(manager.directory / RESULT_FILE)
    except OneXNError as error:  # the trials are in NNI's database, and in what is returned
        result = replace(result, reason="; ".join(filter(None, (reason, f"{RESULT_FILE} {error.reason}"))))
    return result


def _where(manager: Manager, address: str) -> str:
    """NNI's page, and who can reach it."""
    page = f"experiment {manager.id}: http://localhost:{manager.port}"
    if address == EVERYWHERE:
        return f"{page}, open to the whole network without a password: trials on other machines need it"
    return page if address == LOOPBACK else f"{page}, and on {address} without a password"


def _name(checked: Checked) -> str:
    return checked.config.experiment_name or "experiment"


def _record(checked: Checked, started: str) -> dict[str, Any]:
    with quiet():
        canonical = checked.config.canonical_copy()
    tuner = canonical.tuner
    return {"started": started, "platform": checked.platform,
            "tuner": tuner.name or tuner.class_name, "trial_command": canonical.trial_command,
            "search_space": canonical.search_space, "versions": {name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
