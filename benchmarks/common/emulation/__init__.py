"""ARM processors on this machine: an emulator and what it runs, fetched once, for benchmarks and tests alike."""
