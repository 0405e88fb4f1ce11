"""The slow stages, whose results are kept: compression, ranges, sensitivities, and the refined Q/DQ network of a scheme.

What comes out is read back from the bytes that are kept, whether they were made now or by an earlier build: a bundle cannot
depend on the cache.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace

import onnx

from edge_resnet.adoption import Network
from edge_resnet.calibration.qdq import QuantizedModel
from edge_resnet.calibration.quantize import chain_wanted, frames_wanted, quantize
from edge_resnet.calibration.refine import exact_input
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.sensitivity import Sensitivity
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.compression.options import PruneOptions
from edge_resnet.images import ImageSet
from edge_resnet.lowering import QUANTIZED
from edge_resnet.onnx_file import serialise
from edge_resnet.recipe import Recipe
from edge_resnet.stage_cache import Members, Work
from edge_resnet.stages import Stages
from edge_resnet.workforce import CALIBRATION_BATCH, THIS_MACHINE, Workforce

_TABLE, _MODEL, _LAYERS, _FOUND = "table.json", "model.onnx", "layers.json", "sensitivity.json"
_STEPS = "steps.json"


def calibrated(
    recipe: Recipe, source: Network, images: ImageSet, stages: Stages, workforce: Workforce = THIS_MACHINE
) -> CalibrationTable:
    """Collects the ranges of a network over images.

    Raises:
        CalibrationError: they cannot be collected.
        ImageError: a file cannot be used.
    """
    spec, method = source.preprocessing, recipe.calibration.method

    def make() -> Members:
        table = workforce.calibrate(source.model, images, spec, method, stages.progress.advance)
        return {_TABLE: table.to_json().encode()}

    inputs = {
        "model": _sha256(serialise(source.model)),
        "images": images.manifest(),
        "preprocessing": spec.to_json(),
        "method": method,
        "batch": CALIBRATION_BATCH,
    }
    work = Work("calibrate", _made_for(recipe), inputs)
    return CalibrationTable.from_json(stages.kept(work, make, len(images))[_TABLE], "the ranges of this build")


def compressed(
    recipe: Recipe | None, source: Network, images: ImageSet, wanted: PruneOptions, stages: Stages
) -> tuple[tuple[str, Network], ...]:
    """Compresses a network step by step.

    Args:
        recipe: its output names who this is made for; None: nobody.
        source: the FP32 network.
        images: to fine-tune on.
        wanted: how far.
        stages: keeps the result.

    Returns:
        The name of each step and the network behind it; the last is the result.

    Raises:
        CalibrationError: nothing can be taken out, or not so much; there are too few images.
        ImageError: a file cannot be used.
    """

    def make() -> Members:
        from edge_resnet.compression.compress import compress  # loads torch

        steps = compress(source.model, images.pixels(source.preprocessing), wanted, stages.progress.update_phase)
        models = {f"{index}.onnx": serialise(step.model) for index, step in enumerate(steps)}
        return {_STEPS: json.dumps([step.name for step in steps]).encode(), **models}

    inputs = {
        "model": _sha256(serialise(source.model)),
        "images": list(images.hashes),
        "preprocessing": source.preprocessing.to_json(),
        "wanted": {each.name: getattr(wanted, each.name) for each in fields(PruneOptions)},
    }
    members = stages.kept(Work("prune", "" if recipe is None else _made_for(recipe), inputs), make)
    return tuple(
        (name, replace(source, model=onnx.load_model_from_string(members[f"{index}.onnx"])))
        for index, name in enumerate(json.loads(members[_STEPS]))
    )


def sensed(
    recipe: Recipe,
    source: Network,
    table: CalibrationTable,
    images: ImageSet,
    scheme: str,
    stages: Stages,
    workforce: Workforce = THIS_MACHINE,
) -> tuple[Sensitivity, ...]:
    """Measures what each layer costs in INT8 alone, with an exact input and no other refinement.

    Args:
        recipe: its output names who this is made for.
        source: the FP32 network.
        table: its ranges.
        images: to measure on; some dozen tell layers apart.
        scheme: how it will be quantized.
        stages: keeps the result.
        workforce: measures.
    """
    spec = source.preprocessing

    def make() -> Members:
        refined = exact_input(source.model, table)
        frames, update = images.pixels(spec), stages.progress.update_phase
        found = workforce.sensitivities(refined, scheme_named(scheme), frames, update)
        return {_FOUND: json.dumps([asdict(each) for each in found]).encode()}

    inputs = {
        "model": _sha256(serialise(source.model)),
        "table": _sha256(table.to_json().encode()),
        "images": list(images.hashes),
        "preprocessing": spec.to_json(),
        "scheme": scheme,
    }
    members = stages.kept(Work(f"sensitivity for {scheme}", _made_for(recipe), inputs), make)
    return tuple(Sensitivity(**each) for each in json.loads(members[_FOUND]))


def quantized(
    recipe: Recipe, source: Network, table: CalibrationTable, images: ImageSet, scheme: str, stages: Stages
) -> QuantizedModel:
    """Refines a network and inserts Q/DQ for a scheme.

    Raises:
        CalibrationError: the table or the chain does not fit, or a name in ``keep_float`` is unknown.
        ImageError: a file cannot be used.
    """
    options, chain = recipe.quantize, chain_of(recipe)
    wanted = frames_wanted(options.effort, chain)
    seen = images.draw(wanted) if wanted else None

    def make() -> Members:
        made = quantize(
            source.model,
            table,
            scheme_named(scheme),
            None if seen is None else seen.pixels(source.preprocessing),
            chain=chain,
            keep_float=options.keep_float,
            progress=stages.progress.update_phase,
        )
        layers = {"quantized": made.quantized_layers, "kept_float": made.kept_float}
        return {_MODEL: serialise(made.model), _LAYERS: json.dumps(layers).encode()}

    inputs = {
        "model": _sha256(serialise(source.model)),
        "table": _sha256(table.to_json().encode()),
        "images": None if seen is None else list(seen.hashes),
        "preprocessing": source.preprocessing.to_json(),
        "scheme": scheme,
        "chain": list(chain),
        "keep_float": list(options.keep_float),
    }
    members = stages.kept(Work(f"quantize for {scheme}", _made_for(recipe), inputs), make)
    layers = json.loads(members[_LAYERS])
    model = onnx.load_model_from_string(members[_MODEL])
    return QuantizedModel(model, scheme, tuple(layers["quantized"]), tuple(layers["kept_float"]))


def chain_of(recipe: Recipe) -> tuple[str, ...]:
    """The refinements that a recipe asks for.

    Raises:
        CalibrationError: they cannot be applied.
    """
    portable = QUANTIZED.get(recipe.build.precision)
    scheme = None if portable is None else scheme_named(portable)
    return chain_wanted(recipe.quantize.effort, recipe.quantize.refine, scheme)


def _made_for(recipe: Recipe) -> str:
    return recipe.build.output.name


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
