"""Trains the demo model: ResNet-20 on Fashion-MNIST, from the Debian package ``dataset-fashion-mnist``.

    sudo apt-get install dataset-fashion-mnist
    python examples/train_fashion_mnist.py --output resnet20-fashion-mnist.safetensors

One run with the default seed made the weights that the package ships; its log is ``train_fashion_mnist.log``.
SGD with Nesterov momentum and a one-cycle learning rate (Smith, arXiv:1708.07120), random shifts and mirror images,
random erasing (Zhong et al., arXiv:1708.04896) and label smoothing; the last epoch's weights are kept, so that the test
images choose nothing. ``--bf16`` runs the convolutions in bfloat16, twice as fast on CPUs that have it.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from edge_resnet.models import ResNet, create_model

MEAN, STD = 0.2860, 0.3530
"""Of the training images, in 0..1."""


def read_idx(path: Path) -> np.ndarray:
    """Reads one gzipped IDX file (format: yann.lecun.com/exdb/mnist) as uint8."""
    with gzip.open(path) as file:
        data = file.read()
    dimensions = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images, normalised float N×1×28×28, and labels of ``train`` or ``t10k``."""
    images = torch.from_numpy(read_idx(folder / f"{split}-images-idx3-ubyte.gz").copy()).unsqueeze(1)
    labels = torch.from_numpy(read_idx(folder / f"{split}-labels-idx1-ubyte.gz").copy()).long()
    return (images.float() / 255 - MEAN) / STD, labels


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts each image by up to 2 pixels, mirrors half of them, and erases a square from half of them."""
    count, _, height, width = images.shape
    shift = torch.randint(-2, 3, (2, count, 1, 1), generator=generator)
    rows = (torch.arange(height).view(1, height, 1) + shift[0]).clamp(0, height - 1)
    columns = torch.arange(width).view(1, 1, width).expand(count, 1, width)
    mirror = torch.rand(count, 1, 1, generator=generator) < 0.5
    columns = torch.where(mirror, width - 1 - columns, columns)
    columns = (columns + shift[1]).clamp(0, width - 1)
    images = images[torch.arange(count).view(count, 1, 1), 0, rows, columns].unsqueeze(1)
    side = torch.randint(4, 13, (count, 1, 1), generator=generator)
    top, left = (torch.randint(-4, height - 4, (2, count, 1, 1), generator=generator)).unbind(0)
    y, x = torch.arange(height).view(1, height, 1), torch.arange(width).view(1, 1, width)
    square = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    erased = square & (torch.rand(count, 1, 1, generator=generator) < 0.5)
    return images.masked_fill(erased.unsqueeze(1), 0.0)


@torch.no_grad()
def accuracy(model: ResNet, images: Tensor, labels: Tensor) -> float:
    """Top-1 in float32."""
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return right / len(labels)


def train(model: ResNet, images: Tensor, labels: Tensor, args: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(args.seed)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}],
        lr=args.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    steps = len(images) // args.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, total_steps=steps * args.epochs, pct_start=0.2
    )
    for epoch in range(1, args.epochs + 1):
        model.train()
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images), generator=generator)
        for step in range(steps):
            chosen = order[step * args.batch : (step + 1) * args.batch]
            batch = augment(images[chosen], generator).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = model(batch)
            loss = functional.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch:2d}  loss {total / steps:.4f}  {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=Path("resnet20-fashion-mnist.safetensors"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    images, labels = load(args.data, "train")
    test_images, test_labels = load(args.data, "t10k")
    model = create_model("resnet20", classes=10, channels=1).to(memory_format=torch.channels_last)
    settings = " ".join(f"{name}={value}" for name, value in vars(args).items() if name not in ("data", "output"))
    print(f"torch {torch.__version__}  {settings}", flush=True)
    train(model, images, labels, args)
    print(f"test top-1 {accuracy(model, test_images, test_labels):.4f} on {len(test_labels)} images", flush=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, args.output)


if __name__ == "__main__":
    main()
