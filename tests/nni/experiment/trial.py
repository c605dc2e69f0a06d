"""A trial without torch: what it does and reports is what its parameters say."""

import os
import signal
import sys
import time

import nni
import psutil

parameters = nni.get_next_parameter()
pruner = parameters["pruner"]
nni.report_intermediate_result(0.25)


def listening() -> list[str]:
    """The addresses that NNI's servers listen on."""
    mark = os.environ.get("ONEXN_EXPERIMENT", "another machine")
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("ONEXN_EXPERIMENT") == mark:
                found |= {c.laddr.ip for c in process.connections("inet") if c.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue
    return sorted(found)


if pruner["_name"] == "Crash":
    sys.exit("crashed on purpose")
if pruner["_name"] == "Killed":
    os.kill(os.getpid(), signal.SIGKILL)
if pruner["_name"] == "Slow":
    time.sleep(600)
if pruner["_name"] == "Fill":
    with open(os.path.join(os.environ["NNI_OUTPUT_DIR"], "everything"), "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
if pruner["_name"] == "Number":
    nni.report_final_result(0.5)
else:
    nni.report_final_result({"default": 0.75, "latency_ms": 1.5, "pruner": pruner["_name"],
                             "listening": listening(), "python": sys.executable, "absent": None})
