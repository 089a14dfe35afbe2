"""Encoder-decoders as compact ONNX graphs, built by hand from a model's weights."""
