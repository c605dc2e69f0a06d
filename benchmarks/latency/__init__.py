"""Latency of pruned ImageNet networks beside the engines people deploy dense ones with."""
