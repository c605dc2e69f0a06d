"""Networks of other tasks than classification, written down after their publications, small enough to measure many.

Each function takes nothing and returns a module, as onexn_plugins.zoo.load_model takes "module:function".
"""
