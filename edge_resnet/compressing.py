"""Compression in a build: the recipe's [prune], its images, and what each step costs, held against the original network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.accuracy import Answers, Report, compare_answers
from edge_resnet.adoption import Network
from edge_resnet.calibration.sparsity import sparse_convolutions
from edge_resnet.check import BATCH, float_run
from edge_resnet.compression.counting import macs_of, zero_share
from edge_resnet.compression.options import PruneOptions
from edge_resnet.images import ImageSet, check_disjoint, open_images
from edge_resnet.kept_stages import compressed
from edge_resnet.onnx_file import gives_features
from edge_resnet.recipe import Recipe
from edge_resnet.similarity import compare_features
from edge_resnet.stages import Stages

FEW = 256
"""Images below which whoever waits is told."""
JUDGED = 1000
"""Images that steps are judged on, at most: engines are judged on all."""
_OF_A_GATE = ("passed", "max_drop", "strict", "images_to_be_sure", "evaluated", "engine_name")


@dataclass(frozen=True)
class JudgedStep:
    """One step of compression, its FP32 network against the original one."""

    name: str
    macs: float
    """Share of the original's multiply-adds."""
    zeros: float
    """Share of the weights that are 0."""
    accuracy: Report

    def to_json(self) -> dict[str, Any]:
        """An element of ``steps``."""
        told = {key: value for key, value in self.accuracy.to_json().items() if key not in _OF_A_GATE}
        return {"step": self.name, "macs": self.macs, "zeros": self.zeros, **told}


@dataclass(frozen=True)
class Compression:
    """A network that was made smaller, and how it came to be."""

    network: Network
    steps: tuple[JudgedStep, ...]
    dense_layers: tuple[str, ...]
    """With 2:4 sparsity: convolutions and linear layers that are not."""
    images: ImageSet
    """It was fine-tuned on."""
    judged_on: str
    """``accuracy``: images of [accuracy], which it has not seen; ``prune``: the very ones that it was fine-tuned on."""

    def to_json(self) -> dict[str, Any]:
        """``compression`` in what ``build --json`` and ``prune --json`` print."""
        return {
            "steps": [step.to_json() for step in self.steps],
            "dense_layers": list(self.dense_layers),
            "images": len(self.images),
            "judged_on": self.judged_on,
        }

    def provenance(self) -> dict[str, Any]:
        """The same for a manifest, with the images' own."""
        return {**self.to_json(), "images": self.images.manifest()}


def compression_of(
    recipe: Recipe, source: Network, calibration: ImageSet, evaluation: ImageSet | None, stages: Stages
) -> Compression | None:
    """Compresses a recipe's network; None where the recipe does not ask for it.

    Raises:
        CalibrationError: nothing can be taken out, or not so much; there are too few images.
        ImageError: an image cannot be used, or is one of [accuracy] too.
    """
    wanted, images = recipe.prune, calibration
    if wanted is None:
        return None
    if wanted.images is not None:
        images = open_images(wanted.images, wanted.limit or recipe.calibration.limit)
    elif wanted.limit is not None:
        images = open_images(recipe.calibration.images, wanted.limit)
    return compress_network(recipe, source, wanted, images, evaluation, stages)


def compress_network(
    recipe: Recipe | None,
    source: Network,
    wanted: PruneOptions,
    images: ImageSet,
    evaluation: ImageSet | None,
    stages: Stages,
) -> Compression:
    """Compresses a network and judges every step.

    Args:
        recipe: whom the result is kept for; None: for nobody by name.
        source: the original FP32 network.
        wanted: how far.
        images: to fine-tune on.
        evaluation: to judge on, labelled as the network is; None: the images of fine-tuning, without labels.
        stages: keeps the slow part.

    Raises:
        CalibrationError, ImageError: as ``compression_of``.
    """
    if evaluation is not None:
        check_disjoint(images.hashes, evaluation)
    if len(images) < FEW and wanted.steps:
        stages.progress.note(
            f"pruning makes good on {len(images)} images: hundreds keep more of the accuracy, thousands more still"
        )
    steps = compressed(recipe, source, images, wanted, stages)
    seen = (images if evaluation is None else evaluation).draw(JUDGED)
    with stages.stage("check pruning"):
        judged = _judged(source, steps, seen, None if evaluation is None else seen.labels)
    network = steps[-1][1]
    dense = _dense(network.model) if wanted.sparsity is not None else ()
    return Compression(network, judged, dense, images, "prune" if evaluation is None else "accuracy")


def _judged(
    source: Network, steps: tuple[tuple[str, Network], ...], images: ImageSet, labels: tuple[int, ...] | None
) -> tuple[JudgedStep, ...]:
    comparison = compare_features if gives_features(source.model) else compare_answers
    full, wanted = sum(macs_of(source.model).values()), _answers(source, images)
    found = []
    for name, network in steps:
        answers = _answers(network, images)
        report = comparison([(wanted, answers)], labels, engine_name=name, evaluated="measured")
        found.append(JudgedStep(name, sum(macs_of(network.model).values()) / full, zero_share(network.model), report))
    return tuple(found)


def _answers(network: Network, images: ImageSet) -> Answers:
    run = float_run(network.model)
    made: npt.NDArray[np.float32] = np.concatenate([run(f) for f in images.batches(network.preprocessing, BATCH)])
    return made


def _dense(model: onnx.ModelProto) -> tuple[str, ...]:
    sparse = set(sparse_convolutions(model))
    return tuple(name for name in macs_of(model) if name not in sparse)
