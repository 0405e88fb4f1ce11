"""CUDA memory, streams, events and graphs, by whichever Python binding is installed.

``api`` says what a binding must give; ``bindings`` (NVIDIA's ``cuda-bindings``) and ``pycuda_api`` (PyCUDA) give it;
``memory`` and ``work`` make of it what engines use. Nothing is imported before it is needed.
"""

from edge_resnet.engines.cuda.api import CudaApi, Gpu
from edge_resnet.engines.cuda.choice import VARIABLE, cuda_api, gpu_sm
from edge_resnet.engines.cuda.memory import DeviceBuffer, HostBuffer, MappedTensor, StagedTensor, Tensor
from edge_resnet.engines.cuda.work import Event, Graph, Stream

__all__ = [
    "VARIABLE",
    "CudaApi",
    "DeviceBuffer",
    "Event",
    "Gpu",
    "Graph",
    "HostBuffer",
    "MappedTensor",
    "StagedTensor",
    "Stream",
    "Tensor",
    "cuda_api",
    "gpu_sm",
]
