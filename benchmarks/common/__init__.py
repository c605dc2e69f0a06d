"""What benchmarks share with each other and with tests: records of where numbers were made, layers, an emulator."""
