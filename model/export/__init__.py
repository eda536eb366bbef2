"""The model as a file for other runtimes: ONNX, and PyTorch's exported programs."""
