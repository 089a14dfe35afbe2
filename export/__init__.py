"""What ships: checkpoints become ONNX bundles, and bundles answer without torch."""
