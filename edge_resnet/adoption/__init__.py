"""Foreign FP32 ONNX → the ONNX that ``edge_resnet.export`` writes: a classifier, ready for calibration."""

from edge_resnet.adoption.foreign import Adopted, adopt
from edge_resnet.adoption.network import Network, open_network

__all__ = ["Adopted", "Network", "adopt", "open_network"]
