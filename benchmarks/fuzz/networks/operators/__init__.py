"""Operators with random attributes, for tensors that there are: what a network is made of."""

from __future__ import annotations

from benchmarks.fuzz.networks.operators import (
    chains,
    control,
    moving,
    normalising,
    pointwise,
    products,
    quantised,
    rare,
    reducing,
    typed,
    windows,
)
from benchmarks.fuzz.networks.operators.made import Maker

# By numpy's letter for the kind of element: floats, whole numbers with and without a sign, truth values.
MAKERS: dict[str, list[Maker]] = {
    "f": [*pointwise.MAKERS, *3 * windows.MAKERS, *2 * products.MAKERS, *normalising.MAKERS, *reducing.MAKERS,
          *moving.MAKERS, *typed.OF_FLOATS, *2 * control.MAKERS, *2 * chains.MAKERS, *quantised.OF_FLOATS,
          *rare.MAKERS],
    "i": [*typed.OF_INTEGERS, *moving.MAKERS, *reducing.OF_INTEGERS, *quantised.OF_INTEGERS, *rare.ANY_TYPE],
    "b": [*typed.OF_BOOLEANS, *moving.ANY_TYPE, *rare.ANY_TYPE],
}
MAKERS["u"] = [*typed.OF_UNSIGNED, *moving.ANY_TYPE, *reducing.OF_INTEGERS, *quantised.OF_INTEGERS, *rare.ANY_TYPE,
               *rare.OF_UNSIGNED]
