"""How many instructions one inference takes on 64-bit ARM: ours and the peers', counted under an emulator."""
