"""A compiled network at work: inputs lent, threads, latency, a profile beside the roofline, boards over RPC."""
