"""A tuner that is slow to start, as all are on a busy machine: NNI itself gives up after ten seconds."""

import time

from nni.tuner import Tuner

time.sleep(12)


class SlowTuner(Tuner):
    def update_search_space(self, search_space):
        pass

    def generate_parameters(self, parameter_id, **kwargs):
        return {"pruner": {"_name": "Table"}, "sparse_ratio": 0.5}

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        pass
