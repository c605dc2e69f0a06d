"""A virtual environment per peer: their requirements contradict each other's and ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.latency.engines import DENSE, SPARSE, engine

ROOT = Path(__file__).parents[2]
DEFAULT_FOLDER = ROOT / ".peers"
NOT_SET_UP = "not set up; run python -m benchmarks.latency setup"
REASON = "why-not.txt"


@dataclass(frozen=True)
class Environments:
    """
    Attributes:
        folder: holds one environment per engine, and what was converted for it.
    """

    folder: Path = DEFAULT_FOLDER

    def python(self, name: str) -> Path:
        """The Python that an engine runs in."""
        if not engine(name).REQUIREMENTS:
            return Path(sys.executable)
        return self._home(name) / "bin" / "python"

    def version(self, name: str) -> str:
        """Of the engine's distribution.

        Raises:
            LookupError: it is not installed; the text says why.
        """
        done = None
        if self.python(name).exists():
            query = f"import importlib.metadata as m; print(m.version({engine(name).PACKAGE!r}))"
            done = subprocess.run([self.python(name), "-c", query], capture_output=True, text=True, check=False)
        if done is None or done.returncode:
            reason = self._home(name) / REASON
            raise LookupError(reason.read_text(encoding="utf-8") if reason.exists() else NOT_SET_UP)
        return done.stdout.strip()

    def set_up(self, name: str) -> str:
        """Make the engine's environment if it is not there: its version.

        Raises:
            LookupError: pip could not; what remains says why.
        """
        try:
            return self.version(name)
        except LookupError:
            if not engine(name).REQUIREMENTS:
                raise
        home = self._home(name)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        for words in engine(name).REQUIREMENTS:
            done = subprocess.run([self.python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                                   *words], capture_output=True, text=True, check=False)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
                (home / REASON).write_text(errors[-1], encoding="utf-8")
                break
        return self.version(name)

    def installed(self) -> tuple[dict[str, str], dict[str, str]]:
        """Versions of the peers that are there, and why the others are not."""
        versions, absent = {}, {}
        for name in (*DENSE, *SPARSE):
            try:
                versions[name] = self.version(name)
            except LookupError as reason:
                absent[name] = str(reason)
        return versions, absent

    def _home(self, name: str) -> Path:
        return self.folder / "environments" / getattr(engine(name), "ENVIRONMENT", name)
