"""Writes the images that the package ships: the first 50 training and 100 test images of each Fashion-MNIST class.

sudo apt-get install dataset-fashion-mnist
python examples/make_demo_images.py edge_resnet/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from train_fashion_mnist import read_idx

CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
"""In the order of the data set's labels."""


def write(data: Path, split: str, per_class: int, output: Path) -> None:
    images = read_idx(data / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(data / f"{split}-labels-idx1-ubyte.gz")
    for label, name in enumerate(CLASSES):
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(labels == label)[:per_class]:
            Image.fromarray(images[index]).save(folder / f"{index:05d}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    args = parser.parse_args()
    write(args.data, "train", 50, args.output / "calibration")
    write(args.data, "t10k", 100, args.output / "test")
    (args.output / "labels.txt").write_text("\n".join(CLASSES) + "\n")


if __name__ == "__main__":
    main()
