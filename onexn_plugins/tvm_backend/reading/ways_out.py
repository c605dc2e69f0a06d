"""What messages advise where a file cannot be used as it is."""

EXPORT_AGAIN = "Export the model again, for example with onexn_plugins.export_onnx"
STATIC_SHAPES = "Export with static shapes: give export_onnx example inputs and no dynamic_shapes"
OTHER_LAYERS = "Replace it in the model by standard layers and export again"
