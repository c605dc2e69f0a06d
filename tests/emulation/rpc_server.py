"""Starts TVM's RPC server on the emulated board.

    python rpc_server.py OPTIONS...

TVM's own server ends its loop for good when a client is gone before its session has ended: that session's process
fails, and the board is never free again. This one goes on; and it forks from its main thread, which emulators like
better.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket

from tvm.rpc import server


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--port-end", type=int, help="no other port is tried")
    parser.add_argument("--tracker", help="HOST:PORT")
    parser.add_argument("--key", default="")
    options = parser.parse_args()
    listener = socket.create_server((options.host, options.port))
    host, _, port = (options.tracker or "").rpartition(":")
    while True:
        os.chdir("/")  # a failed session leaves the loop in its folder, which is gone
        with contextlib.suppress(RuntimeError):  # a session that failed
            server._listen_loop(listener, options.port, options.key, (host, int(port)) if host else None, None, None)


if __name__ == "__main__":
    main()
