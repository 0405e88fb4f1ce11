"""Why residual networks: trains plain and residual networks of two depths each, and draws the paper's two plots.

    sudo apt-get install dataset-fashion-mnist
    pip install matplotlib
    python examples/degradation.py --bf16     # under two hours on two cores
    python examples/degradation.py --quick    # minutes; too short to show more than a tendency

He et al. (arXiv:1512.03385) found that a plain network of 56 layers has a higher *training* error than one of 20: no
overfitting, but an optimisation that fails. With shortcuts the order turns round. This script repeats figures 1, 4 and 6 on
Fashion-MNIST at a size that two cores can train, with the paper's schedule for CIFAR-10 (section 4.2) shortened: SGD with
momentum 0.9, weight decay 1e-4, batches of 128, learning rate 0.1, divided by 10 at one half and at three quarters;
images padded by 4 pixels, cropped at random and mirrored. ResNet-18 and 34 have the CIFAR stem (3×3, no pooling) and
a quarter of their width, as do their plain twins.

Networks whose rows are in the CSV file already are not trained again, so that a run may be stopped and taken up.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from train_fashion_mnist import load

from edge_resnet.models import ARCHITECTURES, Architecture, ResNet

FIELDS = ("network", "iteration", "training_error", "test_error")
PAIRS = (("plain20", "plain56"), ("resnet20", "resnet56"), ("plain18", "plain34"), ("resnet18", "resnet34"))
"""One panel of the picture each: the shallower and the deeper network."""
FIRST_STEPS = 400
"""Iterations with a learning rate of 0.01 in the beginning, at most; the paper needed them for its deepest network."""
BATCH = 128


@dataclass(frozen=True)
class Schedule:
    """How long, and how often to look."""

    iterations: int
    look_every: int
    test_images: int

    def learning_rate(self, iteration: int) -> float:
        """The paper's: 0.1, divided by 10 at one half and three quarters, after a warm-up."""
        if iteration < min(FIRST_STEPS, self.iterations // 20):
            return 0.01
        return 0.1 * 0.1 ** ((iteration >= self.iterations // 2) + (iteration >= 3 * self.iterations // 4))


FULL = Schedule(iterations=2000, look_every=100, test_images=2000)
QUICK = Schedule(iterations=40, look_every=20, test_images=500)


def small(name: str) -> Architecture:
    """The architecture itself, or for the ImageNet family a quarter of its width behind a CIFAR stem."""
    architecture = ARCHITECTURES[name]
    if architecture.stem == "3x3":
        return architecture
    return replace(architecture, stem="3x3", widths=tuple(width // 4 for width in architecture.widths))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pads by 4 pixels, crops at random, mirrors half."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (4, 4, 4, 4), value=float(images.min()))
    top, left = torch.randint(0, 9, (2, count, 1, 1), generator=generator)
    columns = torch.arange(width).expand(count, 1, width)
    mirror = torch.rand(count, 1, 1, generator=generator) < 0.5
    columns = torch.where(mirror, width - 1 - columns, columns) + left
    rows = torch.arange(height).view(1, height, 1) + top
    return padded[torch.arange(count).view(count, 1, 1), 0, rows, columns].unsqueeze(1)


@torch.no_grad()
def error(model: ResNet, images: Tensor, labels: Tensor) -> float:
    """Share of images whose class is wrong, in percent."""
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    model.train()
    return 100 * (1 - right / len(labels))


def train(name: str, data: Path, schedule: Schedule, bf16: bool) -> list[tuple[str, int, float, float]]:
    """Trains one network; its training error is the mean over the batches since the last look."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images, labels = load(data, "train")
    test_images, test_labels = (part[: schedule.test_images] for part in load(data, "t10k"))
    model = ResNet(small(name), classes=10, channels=1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    rows, wrong, start = [], 0, time.perf_counter()
    order = torch.randperm(len(images), generator=generator)
    for iteration in range(1, schedule.iterations + 1):
        if len(order) < BATCH:
            order = torch.randperm(len(images), generator=generator)
        chosen, order = order[:BATCH], order[BATCH:]
        batch = augment(images[chosen], generator).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(batch).float()
        wrong += int((logits.argmax(1) != labels[chosen]).sum())
        optimizer.param_groups[0]["lr"] = schedule.learning_rate(iteration)
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels[chosen]).backward()
        optimizer.step()
        if iteration % schedule.look_every == 0:
            rows.append(
                (name, iteration, 100 * wrong / BATCH / schedule.look_every, error(model, test_images, test_labels))
            )
            wrong = 0
            print(
                f"{name:8s} {iteration:5d}  training {rows[-1][2]:5.2f} %  test {rows[-1][3]:5.2f} %  "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return rows


def read(path: Path) -> list[tuple[str, int, float, float]]:
    """The rows of an earlier run; none without a file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            (row["network"], int(row["iteration"]), float(row["training_error"]), float(row["test_error"]))
            for row in csv.DictReader(file)
        ]


def write(path: Path, rows: list[tuple[str, int, float, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows((name, iteration, f"{a:.3f}", f"{b:.3f}") for name, iteration, a, b in rows)


def draw(path: Path, rows: list[tuple[str, int, float, float]]) -> None:
    """Four panels: dashed the training error, solid the test error; the deeper network in the darker colour."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey="row", layout="constrained")
    for axis, pair, colors in zip(axes.flat, PAIRS, (("#e0a030", "#a03000"), ("#50a0d0", "#104080")) * 2, strict=True):
        for name, color in zip(pair, colors, strict=True):
            own = [row for row in rows if row[0] == name]
            x = [iteration for _, iteration, _, _ in own]
            axis.plot(x, [training for _, _, training, _ in own], "--", color=color, linewidth=1)
            axis.plot(x, [test for _, _, _, test in own], color=color, linewidth=1.8, label=name)
        axis.set_title(f"{pair[0]} and {pair[1]}", fontsize=11)
        axis.grid(alpha=0.25)
        axis.legend(loc="upper right")
        axis.set_ylim(0, 30)
    for axis in axes[:, 0]:
        axis.set_ylabel("error (%): solid test, dashed training")
    for axis in axes[1]:
        axis.set_xlabel("iterations")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=Path("degradation.csv"), help="the picture goes beside it")
    parser.add_argument("--quick", action="store_true", help="a few minutes instead of hours")
    parser.add_argument(
        "--bf16", action="store_true", help="convolutions in bfloat16, twice as fast on CPUs that have it"
    )
    args = parser.parse_args()

    rows = read(args.output)
    for name in (name for pair in PAIRS for name in pair):
        if name not in {row[0] for row in rows}:
            rows += train(name, args.data, QUICK if args.quick else FULL, args.bf16)
            write(args.output, rows)
    draw(args.output.with_suffix(".png"), rows)


if __name__ == "__main__":
    main()
