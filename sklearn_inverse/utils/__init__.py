"""Array, tensor and validation helpers shared by every layer."""
