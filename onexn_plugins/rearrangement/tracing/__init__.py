"""Channel labels: follows every channel through a model and finds what must move together. Free of any toolkit."""

from onexn_plugins.rearrangement.tracing.run import find_spaces, trace

__all__ = ["find_spaces", "trace"]
