"""The workers of a Ray cluster as a ``Workforce``. Needs the extra ``ray``.

Images are cut into parts of whole batches, the very batches that one machine makes: results are then equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edge_resnet.accuracy import Answers
from edge_resnet.appearance import MOST, Appearance, Vectors, image_vectors
from edge_resnet.calibration.collect import Observed, Observers, merge, observe, observed_tensors, ranges_of
from edge_resnet.calibration.observers import observer_named
from edge_resnet.calibration.refine import Refined, reported
from edge_resnet.calibration.schemes import Scheme, scheme_named
from edge_resnet.calibration.sensitivity import Frames, Sensitivity, SingleLayers, layers_of
from edge_resnet.calibration.table import CalibrationTable, model_digest
from edge_resnet.calibration_images import calibration_manifest
from edge_resnet.check import BATCH
from edge_resnet.cluster.work import cpus, spread
from edge_resnet.engines.engine import Progress
from edge_resnet.errors import CalibrationError
from edge_resnet.image_parts import Part, parts_of
from edge_resnet.images import ImageSet
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.workforce import CALIBRATION_BATCH, Advance, Answering, Workforce

SHARES = 8
"""Parts that a CPU does, at least: the last ones end together, and little is done anew where one is lost."""
LARGEST_PART = 256
"""Images: beyond it a part's result is small beside its work already."""
HELD_AGAINST = 64
"""Files whose bytes on the workers must be those here. To read all of them here as well would take as long as the work."""


class Crew(Workforce):
    """Spreads work over the connected cluster. Image files must lie at the same path on every worker.

    Args:
        note: told of workers that compute otherwise than this machine.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def calibrate(
        self, model: onnx.ModelProto, images: ImageSet, preprocessing: Preprocessing, method: str, advance: Advance
    ) -> CalibrationTable:
        observer = observer_named(method)
        if not observer.mergeable:
            raise CalibrationError(
                f"--method {method} depends on the order of the images, and cannot be spread: choose another, or leave "
                f"--ray out"
            )
        job = CalibrationJob(model, preprocessing, method, frozenset(images.drawn(MOST)))
        parts = self._parts(images, CALIBRATION_BATCH)
        all_seen = _Seen({name: observer() for name in observed_tensors(model)}, [], [])
        for seen in spread(job, parts, self._note):
            all_seen.add(seen)
            advance(len(seen.hashes))
        looks = Appearance.of_vectors(all_seen.looks)
        manifest = calibration_manifest(images, looks, all_seen.hashes)
        ranges = ranges_of(all_seen.observers)
        return CalibrationTable(method, model_digest(model), manifest, preprocessing.to_json(), ranges)

    def answers(
        self, networks: Sequence[Answering], images: ImageSet, preprocessing: Preprocessing
    ) -> Iterator[tuple[Answers, ...]]:
        for answered in spread(AnswersJob(tuple(networks), preprocessing), self._parts(images, BATCH), self._note):
            yield from answered

    def sensitivities(
        self, refined: Refined, scheme: Scheme, frames: Frames, progress: Progress
    ) -> tuple[Sensitivity, ...]:
        layers = layers_of(refined.model)
        found = spread(LayersJob(refined, scheme.name, frames), layers, self._note)
        return tuple(next(found) for _ in reported(layers, "layers", progress))

    @staticmethod
    def _parts(images: ImageSet, batch: int) -> list[Part]:
        """Whole batches; of some files it is known what they hold here, which tells another copy of the images apart."""
        share = len(images) / (SHARES * max(1, cpus()))
        size = batch * max(1, round(min(share, LARGEST_PART) / batch))
        some = images.draw(HELD_AGAINST)
        return parts_of(images, size, dict(zip(some.paths, some.hashes, strict=True)))


@dataclass
class _Seen:
    """What is known of some consecutive images."""

    observers: Observers
    hashes: list[str]
    looks: list[Vectors]

    def add(self, others: _Seen) -> None:
        """What is known of those that follow."""
        merge(self.observers, others.observers)
        self.hashes += others.hashes
        self.looks += others.looks


@dataclass(frozen=True)
class CalibrationJob:
    """The job of observing parts of the images."""

    model: onnx.ModelProto
    preprocessing: Preprocessing
    method: str
    looked_at: frozenset[int]
    """Places of the images of which vectors are wanted."""

    def begin(self) -> Callable[[Part], _Seen]:
        network = Observed(self.model, 1)

        def observed(part: Part) -> _Seen:
            seen = _Seen(network.observers(self.method), [], [])
            done = part.first
            for batch in part.batches(self.preprocessing, CALIBRATION_BATCH, seen.hashes):
                observe(seen.observers, network.statistics(batch), done)
                wanted = [index for index in range(len(batch)) if done + index in self.looked_at]
                if wanted:
                    seen.looks.append(image_vectors(batch[wanted]))
                done += len(batch)
            return seen

        return observed


@dataclass(frozen=True)
class AnswersJob:
    """The job of answering parts of the images."""

    networks: tuple[Answering, ...]
    preprocessing: Preprocessing

    def begin(self) -> Callable[[Part], list[tuple[Answers, ...]]]:
        runs = [network.opened(1) for network in self.networks]

        def answered(part: Part) -> list[tuple[Answers, ...]]:
            batches = part.batches(self.preprocessing, BATCH, [])
            return [tuple(np.array(run(frames)) for run in runs) for frames in batches]

        return answered


@dataclass(frozen=True)
class LayersJob:
    """The job of quantizing single layers."""

    refined: Refined
    scheme: str
    frames: Frames

    def begin(self) -> Callable[[str], Sensitivity]:
        return SingleLayers(self.refined, scheme_named(self.scheme), self.frames, 1).measure
