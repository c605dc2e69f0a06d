"""Networks as static programs, for boards without TVM: the Cortex-A7's 32-bit ARM has no TVM runtime to install.

    network          an executable: ./network input.bin output.bin --repeat 20
    libnetwork.a     the same without main(), for a program of one's own
    network.h        what to call in it

The executable needs nothing of the board's system but Linux.
"""
