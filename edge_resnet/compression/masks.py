"""Which weights become 0 for 2:4 sparsity, and making them so."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.calibration.refine import replace_constant
from edge_resnet.calibration.sparsity import can_be_sparse, groups_of, two_four
from edge_resnet.calibration.topology import convolutions, data, load_graph, save_graph

Masks = Mapping[str, npt.NDArray[np.bool_]]
"""By the name of a convolution's weights, where these may be other than 0."""


def two_four_masks(model: onnx.ModelProto) -> Masks:
    """Masks for every convolution of a prepared network that can be 2:4 sparse: of four weights the two largest stay.

    By magnitude alone (Mishra et al., arXiv:2104.08378, section 4); fine-tuning makes good for the rest.
    """
    found = {}
    for conv in convolutions(load_graph(model).graph):
        weight = data(conv, 1)
        assert weight.const_value is not None
        if can_be_sparse(weight.const_value.numpy(), groups_of(conv)):
            found[str(weight.name)] = two_four(np.abs(weight.const_value.numpy()))
    return found


def masked(model: onnx.ModelProto, masks: Masks) -> onnx.ModelProto:
    """The network with zeros where masks say so."""
    loaded = load_graph(model)
    for name, mask in masks.items():
        constant = loaded.graph.initializers[name]
        assert constant.const_value is not None
        replace_constant(constant, constant.const_value.numpy() * mask)
    return save_graph(loaded)
