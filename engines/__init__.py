"""Compiled engines: what they are, how they are made and run, and the devices they are for.

Sees bytes and arrays only. A backend's library is imported when its engine is first used.
"""

from edge_resnet.engines.engine import CompiledEngine, Engine, InputSpec, Layer
from edge_resnet.engines.options import BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target, all_targets, target_named

__all__ = [
    "BatchRange",
    "BuildOptions",
    "CompiledEngine",
    "Engine",
    "HardwareCompatibility",
    "InputSpec",
    "Layer",
    "Target",
    "all_targets",
    "engine_class",
    "target_named",
]
