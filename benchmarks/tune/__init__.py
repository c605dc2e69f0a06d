"""What tuning brings: networks compiled with and without it, interleaved."""
