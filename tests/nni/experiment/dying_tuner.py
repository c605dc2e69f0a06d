"""A tuner with a fault, as users write them: it dies at its second suggestion."""

from nni.tuner import Tuner


class DyingTuner(Tuner):
    def __init__(self):
        self.suggested = 0

    def update_search_space(self, search_space):
        pass

    def generate_parameters(self, parameter_id, **kwargs):
        self.suggested += 1
        if self.suggested == 3:
            raise LookupError("no third suggestion")
        return {"pruner": {"_name": "Table"}, "sparse_ratio": 0.5}

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        pass
