"""The images that a network is calibrated on: what a table says of them, and whether they show what the model knows."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from edge_resnet.adoption import Network
from edge_resnet.appearance import Appearance
from edge_resnet.images import ImageSet
from edge_resnet.onnx_file import class_count, gives_features
from edge_resnet.progress import Progress

_NAMED = 5
"""Classes that a note names."""


def calibration_manifest(images: ImageSet, looks: Appearance, hashes: Sequence[str] | None = None) -> dict[str, object]:
    """The set's manifest, with what its images look like and the version that looked; ``hashes`` as for the set."""
    created_by = {"edge-resnet": version("edge-resnet")}
    return {**images.manifest(hashes), "appearance": looks.to_json(), "created_by": created_by}


def labelled(images: ImageSet, labels: tuple[str, ...], progress: Progress) -> ImageSet:
    """Images with the labels of a model, and a note when nothing but their order says which folder is which class.

    Raises:
        ImageError: a class is not among the labels, or is there twice.
    """
    if images.counted(labels):
        progress.note(
            f"no class of {images.root} has the name of one of the model's: sorted, they are taken for "
            f"{', '.join(labels[:3])} …; to give the model names, give it labels"
        )
    return images.with_labels_of(labels)


def coverage_note(images: ImageSet, network: Network) -> str | None:
    """What a person should know when classes of the model have no folder, or no line of the CSV; None when all have.

    Classes are matched by name; when no name is a label of the model, they are counted. That ``--limit`` draws fewer
    images than there are classes is no matter. Unlabelled images, and networks that give features, have no classes.
    """
    if images.classes is None or gives_features(network.model):
        return None
    labels = network.labels or ()
    known = set(labels) & set(images.classes)
    missing = [label for label in labels if label not in known] if known else []
    total = class_count(network.model)
    covered = total - len(missing) if known else len(images.classes)
    if covered >= total:
        return None
    names = f" (none of {', '.join(missing[:_NAMED])}{', …' if len(missing) > _NAMED else ''})" if missing else ""
    return (
        f"calibration images are of {covered} of the model's {total} classes{names}: "
        f"INT8 may lose more on the others: add images of them to {images.root}"
    )
