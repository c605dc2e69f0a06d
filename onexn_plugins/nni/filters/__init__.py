"""Filters really cut: NNI's filter pruners mask, `cut_filters` makes the network smaller."""

from onexn_plugins.nni.filters.cut import FilterCut, cut_filters
from onexn_plugins.nni.filters.pruner import FilterPruner

__all__ = ["FilterCut", "FilterPruner", "cut_filters"]
