"""Compiling with TensorRT or TensorRT-RTX: ONNX, a target and its options → a plan, the bytes that the runtime loads."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge_resnet.engines._tensorrt_config import allow_types, bits, configure, is_quantized
from edge_resnet.engines._tensorrt_log import logger_of, monitor_of, one_line
from edge_resnet.engines._tensorrt_tensors import Tensor, check_tensors
from edge_resnet.engines._tensorrt_versions import Line
from edge_resnet.engines.engine import Progress
from edge_resnet.engines.options import DEFAULTS, BatchRange, BuildOptions
from edge_resnet.engines.targets import Target
from edge_resnet.errors import EngineError

if TYPE_CHECKING:
    import tensorrt

    from edge_resnet.engines._tensorrt import TensorRtFamily

MAX_BATCH = DEFAULTS.batches.largest
NO_REASON = "it gives no reason"


@dataclass(frozen=True)
class Plan:
    """What a build gives."""

    data: bytes
    timing_cache: bytes | None
    """None where none was asked for."""
    beside_dla: tuple[str, ...]
    """Of a network for a DLA, the layers that it cannot run, and that the GPU does."""


@dataclass(frozen=True)
class _Draft:
    """The library's own objects, of one build."""

    builder: tensorrt.Builder
    network: tensorrt.INetworkDefinition
    config: tensorrt.IBuilderConfig


def build_plan(
    family: type[TensorRtFamily],
    trt: ModuleType,
    model: bytes,
    target: Target,
    options: BuildOptions,
    progress: Progress,
) -> Plan:
    """Compiles a network; the library's logger must be this thread's own.

    Raises:
        EngineError: the library refuses the model or an option.
    """
    logger = logger_of(trt)
    line = family.line(trt)
    typing = line.typing if options.dla_core is None else line.dla_typing
    assert typing is not None  # ``check_options`` has seen that there are DLAs
    builder: tensorrt.Builder = trt.Builder(logger)
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    network: tensorrt.INetworkDefinition = builder.create_network(
        bits(trt.NetworkDefinitionCreationFlag, typing.creation)
    )
    parser: tensorrt.OnnxParser = trt.OnnxParser(
        network, logger
    )  # owns the weights: must live until the engine is built
    if options.dla_core is not None and line.dla_parser_flags:
        parser.set_builder_config(config)
        for name in line.dla_parser_flags:
            parser.set_flag(getattr(trt.OnnxParserFlag, name))
    if not parser.parse(model):
        raise EngineError(f"{family.product} cannot read the model: {_parser_errors(parser, line)}")
    if not typing.takes_quantized and is_quantized(trt, network):
        raise EngineError(
            f"{family.product} {trt.__version__} gives no DLA a network with Q/DQ: build fp16 for it, or give TensorRT "
            "the calibration cache that `edge-resnet export-cache` writes"
        )
    configure(trt, line, builder, config, options)
    allow_types(trt, typing, config, network)
    config.add_optimization_profile(_batch_profile(trt, builder, network, options.batches))
    family.configure(trt, config, target)
    beside = () if options.dla_core is None else _beside_dla(config, network)
    data = _build(family, trt, _Draft(builder, network, config), target, progress)
    cache = None if options.timing_cache is None else bytes(config.get_timing_cache().serialize())
    return Plan(data, cache, beside)


def _build(family: type[TensorRtFamily], trt: ModuleType, draft: _Draft, target: Target, progress: Progress) -> bytes:
    logger = logger_of(trt)
    monitor = monitor_of(trt, progress) if family.line(trt).tells_progress else None
    if monitor is not None:
        draft.config.progress_monitor = monitor
    plan = draft.builder.build_serialized_network(draft.network, draft.config)
    failure = None if monitor is None else monitor.failure
    if plan is None or failure is not None:
        reason = logger.errors[0] if logger.errors else NO_REASON
        family.recover(trt, target)
        raise failure or EngineError(f"{family.product} cannot compile the model for {target.name}: {reason}")
    return bytes(plan)


def _parser_errors(parser: tensorrt.OnnxParser, line: Line) -> str:
    """Every parser error on one line, each with the node that it is about."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return "; ".join(_parser_error(error, line) for error in errors) or NO_REASON


def _parser_error(error: tensorrt.ParserError, line: Line) -> str:
    named = line.names_nodes and error.node_operator()
    node = f"{error.node_operator()} '{error.node_name()}': " if named else ""
    return one_line(node + error.desc())


def _batch_profile(
    trt: ModuleType, builder: tensorrt.Builder, network: tensorrt.INetworkDefinition, batches: BatchRange
) -> Any:
    """The range of batch sizes for a network's input, once its input and output are known to be right."""
    inputs = [Tensor.of(network.get_input(i)) for i in range(network.num_inputs)]
    outputs = [Tensor.of(network.get_output(i)) for i in range(network.num_outputs)]
    check_tensors(trt, inputs, outputs)
    frame = inputs[0].shape[1:]
    profile: tensorrt.IOptimizationProfile = builder.create_optimization_profile()
    sizes = (batches.smallest, batches.typical, batches.largest)
    profile.set_shape(inputs[0].name, *((size, *frame) for size in sizes))
    return profile


def _beside_dla(config: tensorrt.IBuilderConfig, network: tensorrt.INetworkDefinition) -> tuple[str, ...]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))
