"""Accuracy after pruning and fine-tuning: every method on one loop, from one network, with one budget."""
