"""Starts TVM's RPC server on the emulated board.

    python rpc_server.py COMMAND OPTIONS...

TVM starts its workers as `sys.executable -m ...`, which this machine's kernel cannot run without the emulator: COMMAND
is a script that does.
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    sys.executable = sys.argv.pop(1)
    runpy.run_module("tvm.exec.rpc_server", run_name="__main__", alter_sys=True)
