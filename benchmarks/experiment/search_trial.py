"""One trial of search.yaml."""

from __future__ import annotations

import nni

# First of all: NNI hands parameters to whichever trial asks first, and the imports below take seconds.
PARAMETERS = nni.get_next_parameter()

import os  # noqa: E402

from benchmarks.experiment.candidate import candidate, uniform  # noqa: E402
from benchmarks.experiment.task import dense_network  # noqa: E402
from onexn_plugins.training import read_zip  # noqa: E402

if __name__ == "__main__":
    result, _ = candidate(dense_network(), read_zip(os.environ["ONEXN_DATA"]), PARAMETERS or uniform(0.75, 4), seed=0)
    nni.report_final_result(result)
