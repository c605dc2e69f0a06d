"""What a network becomes: a library for TVM's runtime or a program of its own, linked and written as one folder."""
