"""1×N block pruning that runs faster: the method, free of any toolkit.

The adapters are imported by their own names: `onexn_plugins.torch_pruning`, `onexn_plugins.nni`,
`onexn_plugins.tvm_backend`.
"""

from onexn_plugins.checkpoint import load_checkpoint, save_checkpoint
from onexn_plugins.export import export_onnx
from onexn_plugins.masking import fold
from onexn_plugins.measurement import measure
from onexn_plugins.rearrangement import rearrange

__all__ = ["export_onnx", "fold", "load_checkpoint", "measure", "rearrange", "save_checkpoint"]
