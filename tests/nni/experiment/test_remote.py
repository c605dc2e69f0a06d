"""The integration's experiment over NNI's remote training service: an SSH server of our own on the loopback address."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from onexn_plugins.nni.experiment.manager import free_port
from tests.nni.experiment import running
from tests.tools import program

INTEGRATION = running.ROOT / "integrations" / "nni"


@pytest.fixture
def ssh_server(tmp_path):
    """(port, key file) of an SSH server that knows one key, started for this test and stopped after it."""
    server, keygen = (program(name, package="openssh-server") for name in ("sshd", "ssh-keygen"))
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    port, settings = free_port(), tmp_path / "sshd_config"
    settings.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile {tmp_path}/sshd.pid\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "UsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks up what has not logged in yet
    process = subprocess.Popen([server, "-D", "-e", "-f", str(settings)], stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        yield port, tmp_path / "user"
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
        process.terminate()
        process.wait()


def test_trials_run_over_ssh(tmp_path, ssh_server):
    port, key = ssh_server
    config = yaml.safe_load((INTEGRATION / "experiment.yaml").read_text())
    # Neither the interpreter nor the environment comes over SSH by itself: both stand in the command.
    command = f"OMP_NUM_THREADS=1 ONEXN_EPOCHS=1 PYTHONPATH={running.ROOT} {sys.executable} trial.py"
    config |= {"trialCommand": command, "trialCodeDirectory": str(INTEGRATION), "trialConcurrency": 1,
               "trainingService": {"platform": "remote", "machineList": [{
                   "host": "127.0.0.1", "port": port, "user": getpass.getuser(), "sshKeyFile": str(key),
                   "pythonPath": str(Path(sys.executable).parent)}]}}
    code, out, err = running.end(running.begin(tmp_path, config, "--max-trials", "2", "--timeout", "400"), 450)
    found = running.result(tmp_path)
    assert code == 0, out + err + str(found)
    assert found["record"]["platform"] == "remote"
    assert found["record"]["trial_command"] == command
    assert [trial["reported"]["pruner"] for trial in found["trials"]] == ["OneXNPruner", "L1NormPruner"]
    assert all(trial["reported"]["latency_ms"] > 0 for trial in found["trials"])
    assert running.left_running(tmp_path) == []
