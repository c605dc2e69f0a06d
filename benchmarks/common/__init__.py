"""What every benchmark shares: interleaved timing, the record of where numbers were made, visible progress."""
