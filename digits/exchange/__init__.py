"""Trained networks in the forms that others use: model folders, Keras and ONNX files, the Hugging Face hub."""
