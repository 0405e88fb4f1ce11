"""Who does the work over many images, or many layers: this machine alone, or the workers of a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import onnx

from edge_resnet.accuracy import Answers, Run
from edge_resnet.appearance import Appearance
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.refine import Refined
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.sensitivity import Frames, Sensitivity, sensitivities
from edge_resnet.calibration.simulate import exact_session, fast_session, run_frames
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration_images import calibration_manifest
from edge_resnet.check import BATCH
from edge_resnet.engines.engine import Engine, Progress
from edge_resnet.engines.registry import engine_class
from edge_resnet.images import ImageSet
from edge_resnet.preprocessing import Preprocessing

CALIBRATION_BATCH = 2
"""Images that calibration runs together. ONNX Runtime computes all statistics at the end of a run, and every tensor of a
batch stays in memory until then: more images cost memory, and no fewer seconds (``benchmarks/calibration_cost.py``)."""
Advance = Callable[[int], None]


class Answering(ABC):
    """A network that answers frames: opened where it is run, and sent as what it is opened from."""

    @abstractmethod
    def opened(self, threads: int) -> Run:
        """Makes it ready.

        Args:
            threads: that compute: 1, or 0 for one on each core. Answers do not depend on it.
        """

    @cached_property
    def run(self) -> Run:
        """Opened here, once."""
        return self.opened(0)

    def __reduce__(self) -> tuple[type[Answering], tuple[Any, ...]]:
        """Without what is opened."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class FloatNetwork(Answering):
    """An FP32 network, run by ONNX Runtime."""

    model: onnx.ModelProto

    def opened(self, threads: int) -> Run:
        return partial(run_frames, fast_session(self.model, threads))


@dataclass(frozen=True)
class ExactNetwork(Answering):
    """A Q/DQ network, evaluated as it is written."""

    model: onnx.ModelProto

    def opened(self, threads: int) -> Run:
        return partial(run_frames, exact_session(self.model, threads))


@dataclass(frozen=True)
class EngineNetwork(Answering):
    """A compiled engine."""

    kind: str
    data: bytes

    def opened(self, threads: int) -> Run:
        return engine_class(self.kind).one_threaded()(self.data).run if threads == 1 else self.engine.run

    @cached_property
    def engine(self) -> Engine:
        """Opened here, once, with as many threads as it likes."""
        return engine_class(self.kind)(self.data)


class Workforce(ABC):
    """Does the work. Whoever does it, results are the same, bit for bit, on processors of one kind."""

    @abstractmethod
    def calibrate(
        self, model: onnx.ModelProto, images: ImageSet, preprocessing: Preprocessing, method: str, advance: Advance
    ) -> CalibrationTable:
        """Collects the ranges of an FP32 network over images; the table has their manifest.

        Raises:
            CalibrationError: an unknown method, or one that cannot be spread; or a value that is not finite.
            ImageError: a file cannot be used.
        """

    @abstractmethod
    def answers(
        self, networks: Sequence[Answering], images: ImageSet, preprocessing: Preprocessing
    ) -> Iterator[tuple[Answers, ...]]:
        """Runs networks over images: the answers of each to a batch, batch after batch.

        Raises:
            ImageError: a file cannot be used.
        """

    @abstractmethod
    def sensitivities(
        self, refined: Refined, scheme: Scheme, frames: Frames, progress: Progress
    ) -> tuple[Sensitivity, ...]:
        """``calibration.sensitivity.sensitivities``."""


class ThisMachine(Workforce):
    """Does it here, on all cores."""

    def calibrate(
        self, model: onnx.ModelProto, images: ImageSet, preprocessing: Preprocessing, method: str, advance: Advance
    ) -> CalibrationTable:
        return collect(
            model,
            images.batches(preprocessing, CALIBRATION_BATCH),
            method=method,
            images=calibration_manifest(images, Appearance.of(images, preprocessing)),
            preprocessing=preprocessing.to_json(),
            advance=advance,
        )

    def answers(
        self, networks: Sequence[Answering], images: ImageSet, preprocessing: Preprocessing
    ) -> Iterator[tuple[Answers, ...]]:
        runs = [network.run for network in networks]
        for frames in images.batches(preprocessing, BATCH):
            yield tuple(run(frames) for run in runs)

    def sensitivities(
        self, refined: Refined, scheme: Scheme, frames: Frames, progress: Progress
    ) -> tuple[Sensitivity, ...]:
        return sensitivities(refined, scheme, frames, progress)


THIS_MACHINE = ThisMachine()
