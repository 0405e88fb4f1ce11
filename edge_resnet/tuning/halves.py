"""The images of a search: those that calibrate, those that choose, and those that nobody has looked at till the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_resnet.adoption import Network
from edge_resnet.errors import RecipeError
from edge_resnet.images import ImageSet, check_disjoint, open_images
from edge_resnet.recipe import Recipe


@dataclass(frozen=True)
class Images:
    """Three sets without a file in common."""

    calibration: ImageSet
    selection: ImageSet
    """Half of the evaluation images, evenly over the classes, in an order that mixes them: each beginning is a sample."""
    unseen: ImageSet
    """The other half, which the result is reported on: the winner is the best on ``selection``, and lucky there."""


def split_images(recipe: Recipe, network: Network) -> Images:
    """Opens a recipe's images and halves those of [accuracy].

    Raises:
        ImageError: a set cannot be used, or calibration images are among the others.
        RecipeError: the network gives features, or the images have no labels or are fewer than two.
    """
    if network.labels is None:
        raise RecipeError("tune is for classifiers: this network gives features, whose accuracy no image shows")
    if recipe.accuracy.images is None:
        raise RecipeError("[accuracy] has no images: give labelled ones, which tune compares recipes on")
    calibration = open_images(recipe.calibration.images, recipe.calibration.limit)
    every = open_images(recipe.accuracy.images).with_labels_of(network.labels)
    if every.labels is None:
        raise RecipeError(f"{every.root} has no labels: tune needs them, give a folder a class or path,label")
    check_disjoint(calibration.hashes, every)
    half = set(every.draw(len(every) // 2).paths)
    chosen = [index for index, path in enumerate(every.paths) if path in half]
    seen = {every.hashes[index] for index in chosen}
    others = [index for index, digest in enumerate(every.hashes) if digest not in seen]
    if not chosen or not others:
        raise RecipeError(f"{every.root} has {len(every)} image: tune needs two halves of different ones, give more")
    mixed = np.random.default_rng(0).permutation(chosen)
    return Images(calibration, every.take([int(index) for index in mixed]), every.take(others))
