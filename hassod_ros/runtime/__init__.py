"""Run an exported model on images: numpy, OpenCV and onnxruntime (or TensorRT) only, no torch."""
