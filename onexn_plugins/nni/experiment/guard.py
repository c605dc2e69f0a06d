"""A process that outlives the one that runs an experiment, and ends the experiment where that one was killed.

`kill -9` and the kernel's out-of-memory killer leave no time to clean up, and NNI's manager would go on for days. The
guard reads a pipe whose other end its owner holds: it ends with the owner, whatever happens to that one. As a script it
starts without torch and NNI; they are needed at the end alone, to write the result down.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

OVER = b"over"
STOP_SECONDS, WAIT_SECONDS = 30.0, 10.0


class Guard:
    """Of one experiment, from its start until `over`.

    Args:
        experiment: NNI's id.
        port: of NNI's REST.
        result: what `ExperimentResult` takes, for the case that nobody else writes it.
    """

    def __init__(self, experiment: str, port: int, result: dict[str, Any]) -> None:
        words = json.dumps({"experiment": experiment, "port": port, "result": result})
        # In a session of its own: what ends a terminal, or a group of processes, does not end it.
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, start_new_session=True,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(OSError):  # it could not start: the experiment runs without
            self._say(words.encode() + b"\n")

    def over(self) -> None:
        """The experiment has ended and its processes are gone."""
        with contextlib.suppress(OSError, ValueError):
            self._say(OVER)
            self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(WAIT_SECONDS)

    def _say(self, words: bytes) -> None:
        self._pipe.write(words)
        self._pipe.flush()

    @property
    def _pipe(self) -> Any:
        return self._process.stdin


def main() -> None:
    """Wait for the owner's last word, or for its end without one."""
    told = json.loads(sys.stdin.buffer.readline() or b"null")
    if sys.stdin.buffer.read() == OVER or told is None:
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from processes import end_all, marked  # type: ignore[import-not-found]

    experiment = told["experiment"]
    with contextlib.suppress(OSError):  # NNI's own way first, which also ends trials on other machines
        address = f"http://127.0.0.1:{told['port']}/api/v1/nni/experiment"
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while marked(experiment) and time.monotonic() < deadline:
            time.sleep(0.5)
    end_all(experiment)
    subprocess.run([sys.executable, "-c", "import sys; from onexn_plugins.nni.experiment.results import write_down; "
                    "write_down(sys.argv[1])", json.dumps(told["result"])], check=False)


if __name__ == "__main__":
    main()
