"""Trains the networks that other benchmarks quantize beside the demo's: deeper, of bottlenecks, and of V2.

    sudo apt-get install dataset-fashion-mnist
    python benchmarks/train_networks.py [--bf16] [--epochs 5]

On Fashion-MNIST, by the recipe of ``examples/train_fashion_mnist.py`` with fewer epochs: these networks are to have the
weights and activations of trained ones, not the last point of accuracy. The ImageNet family has a 3×3 stem and a quarter
of its width, so that two cores train each in minutes. Weights go to ``--folder``; those that are there stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from _common import FASHION, TRAINED, trained_network
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
from train_fashion_mnist import accuracy, load, train

NETWORKS = ("resnet56", "resnet50", "resnet18v2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=TRAINED)
    parser.add_argument("--data", type=Path, default=FASHION)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    options = parser.parse_args()
    images, labels = load(options.data, "train")
    test_images, test_labels = load(options.data, "t10k")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.network:
        path = options.folder / f"{name}.safetensors"
        if path.is_file():
            continue
        torch.manual_seed(options.seed)
        model = trained_network(name).to(memory_format=torch.channels_last)
        train(model, images, labels, options)
        print(f"{name}: test top-1 {accuracy(model, test_images, test_labels):.4f}", flush=True)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)


if __name__ == "__main__":
    main()
