"""A file becomes one form, or a refusal: canonical operators in order, constants as arrays, every shape known."""
