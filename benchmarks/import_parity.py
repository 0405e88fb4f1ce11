"""Whether imported networks answer as they did in Keras, torchvision and timm, and what a published checkpoint scores.

    python benchmarks/import_parity.py

Each library makes its network with random weights and BatchNorm statistics of a forward pass, answers 8 random and 2 real
images of 224×224, and saves the weights into a file in each of its formats. Our network reads the file and answers the same
images. What is reported is the largest difference of a logit over the largest logit. Then the published CIFAR-10 ResNet-20
classifies 2,000 test images, under the preprocessing documented for it.

Exits with 1 when a difference is above 1e-4.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from _common import SIDE, Row, Table, cifar_resnet20, parser, photo_frames, report

from edge_resnet.check import float_run
from edge_resnet.models import ResNet
from edge_resnet.preprocessing import NAMED
from edge_resnet.weights import load_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from networks import relative_difference  # the same networks as in the tests
from peers import OURS, SUFFIXES, make_peer

HEADER = ("library", "its name", "our name", "parameters equal", "file", "worst Δ over largest logit")
TOLERANCE = 1e-4
RANDOM, REAL = 8, 2


@dataclass(frozen=True)
class Comparison:
    """One network, read from one file."""

    library: str
    name: str
    ours: str
    suffix: str
    parameters: int
    same_parameters: bool
    difference: float

    def row(self) -> Row:
        equal = f"{self.parameters:,}" if self.same_parameters else f"NO, {self.parameters:,} here"
        return (self.library, self.name, self.ours, equal, self.suffix, f"{self.difference:.1e}")


def images(shared: Path) -> npt.NDArray[np.float32]:
    """Random images, and photos, normalised float32 N×3×224×224."""
    preprocessing = NAMED["imagenet"]
    photos = np.stack([*islice(photo_frames(shared, REAL), REAL)])
    normalised = (photos / 255 - preprocessing.mean) / preprocessing.std
    random = np.random.default_rng(0).standard_normal((RANDOM, 3, SIDE, SIDE))
    return np.concatenate([random, normalised.transpose(0, 3, 1, 2)]).astype(np.float32)


def answers(model: ResNet, fed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = model(torch.from_numpy(fed)).numpy()
    return logits


def comparisons(fed: npt.NDArray[np.float32]) -> Iterator[Comparison]:
    """Every network that another library has too, from every file that the library writes."""
    for library, names in OURS.items():
        for name, ours in names.items():
            peer = make_peer(library, name, fed)
            for suffix in SUFFIXES[library]:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / f"{name}{suffix}"
                    peer.save(path)
                    model = load_model(ours, path)
                parameters = sum(parameter.numel() for parameter in model.parameters())
                difference = relative_difference(answers(model, fed), peer.logits)
                same = parameters == peer.parameters
                print(f"{library} {name}{suffix}: {difference:.1e}", file=sys.stderr, flush=True)
                yield Comparison(library, name, ours, suffix, parameters, same, difference)


def published(shared: Path) -> Row:
    """Top-1 of the published ResNet-20 on the test images."""
    subject = cifar_resnet20(shared)
    run = float_run(subject.model)
    batches = [subject.test[start : start + 50] for start in range(0, len(subject.test), 50)]
    classes = np.concatenate([run(batch).argmax(axis=1) for batch in batches])
    right = float((classes == np.array(subject.labels)).mean())
    return ("resnet20-12fca82f.th", "CIFAR-10 test, JPEG", f"{len(classes):,}", f"{right:.4f}")


def main() -> None:
    options = parser(__doc__).parse_args()
    found = list(comparisons(images(options.shared)))
    libraries = ", ".join(f"{name} {version(name)}" for name in OURS)
    tables = [
        Table(f"Imported networks against their own library, 224×224: {libraries}", HEADER, [c.row() for c in found])
    ]
    if (options.shared / "data" / "weights").is_dir():
        header = ("published checkpoint", "images", "how many", "top-1")
        tables.append(Table("Published checkpoint", header, [published(options.shared)]))
    report(tables, options.json)
    worst = {library: max(c.difference for c in found if c.library == library) for library in OURS}
    print("\nworst: " + ", ".join(f"{library} {difference:.1e}" for library, difference in worst.items()))
    if max(worst.values()) > TOLERANCE or not all(c.same_parameters for c in found):
        raise SystemExit("a network does not answer as it did in its library")


if __name__ == "__main__":
    main()
