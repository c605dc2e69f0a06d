"""What families share: tiles, block rows, sums, windows, bands, slices, and threads."""
