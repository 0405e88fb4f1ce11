"""Compiling with TensorRT or TensorRT-RTX: ONNX, a target and its options → a plan, the bytes that the runtime loads."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge_resnet.engines._tensorrt_log import logger_of, monitor_of, one_line
from edge_resnet.engines._tensorrt_tensors import Tensor, check_tensors
from edge_resnet.engines.engine import Progress
from edge_resnet.engines.targets import Target
from edge_resnet.errors import EngineError

if TYPE_CHECKING:
    from edge_resnet.engines._tensorrt import TensorRtFamily

MIN_BATCH = 1
OPT_BATCH = 1
"""The batch that kernels are chosen for: a camera gives one frame at a time."""
MAX_BATCH = 8
NO_REASON = "it gives no reason"


def build_plan(
    family: type[TensorRtFamily], trt: ModuleType, model: bytes, target: Target, progress: Progress
) -> bytes:
    """Compiles a strongly typed network; the library's logger must be this thread's own.

    Raises:
        EngineError: the library refuses the model.
    """
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)  # owns the weights: must live until the engine is built
    if not parser.parse(model):
        raise EngineError(f"{family.product} cannot read the model: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_batch_profile(trt, builder, network))
    family.configure(trt, config, target)
    monitor = monitor_of(trt, progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None or monitor.failure is not None:
        reason = logger.errors[0] if logger.errors else NO_REASON
        family.recover(trt, target)
        raise monitor.failure or EngineError(f"{family.product} cannot compile the model for {target.name}: {reason}")
    return bytes(plan)


def _parser_errors(parser: Any) -> str:
    """Every parser error on one line, each with the node that it is about."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return "; ".join(_parser_error(error) for error in errors) or NO_REASON


def _parser_error(error: Any) -> str:
    node = f"{error.node_operator()} '{error.node_name()}': " if error.node_operator() else ""
    return one_line(node + error.desc())


def _batch_profile(trt: ModuleType, builder: Any, network: Any) -> Any:
    """The range of batch sizes for a network's input, once its input and output are known to be right."""
    inputs = [Tensor.of(network.get_input(i)) for i in range(network.num_inputs)]
    outputs = [Tensor.of(network.get_output(i)) for i in range(network.num_outputs)]
    check_tensors(trt, inputs, outputs)
    frame = inputs[0].shape[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(inputs[0].name, (MIN_BATCH, *frame), (OPT_BATCH, *frame), (MAX_BATCH, *frame))
    return profile
