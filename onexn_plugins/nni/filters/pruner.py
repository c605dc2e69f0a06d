"""`FilterPruner`: cutting filters with a pruner's words, so that a trial treats all pruners alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import check_inputs
from onexn_plugins.nni.filters.cut import FilterCut, cut_filters


class FilterPruner:
    """An NNI filter pruner whose `compress` returns the smaller network.

    Attributes:
        bound_model: the network: the one given, and after compress the smaller one.
        dense_model: the network given; it stays as it is.
        result: what was cut and by whom (`FilterCut`); None before compress.
    """

    def __init__(self, model: nn.Module, config_list: list[dict[str, Any]], *, pruner_class: Callable[..., Any],
                 example_inputs: Any, **options: Any) -> None:
        check_inputs(example_inputs)
        self.bound_model, self.dense_model, self.result = model, model, None
        self._config_list = config_list
        self.pruner_class, self._example_inputs, self._options = pruner_class, example_inputs, options

    bound_model: nn.Module
    dense_model: nn.Module
    result: FilterCut | None

    def compress(self) -> tuple[nn.Module, dict[str, dict[str, Tensor]]]:
        """(the smaller network, no masks). The network given stays as it is.

        Raises:
            OneXNError: called twice, or the network cannot be cut.
        """
        if self.result is not None:
            raise OneXNError("compress", "the filters are cut already", "Make a new pruner for the smaller network")
        self.result = cut_filters(self.dense_model, self.pruner_class, self._config_list, self._example_inputs,
                                  **self._options)
        self.bound_model = self.result.model
        return self.bound_model, {}

    def unwrap_model(self) -> nn.Module:
        """The network; it was never wrapped."""
        return self.bound_model
