"""How many zero blocks a layer needs before skipping them is faster than computing them."""
