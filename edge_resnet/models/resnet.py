"""Residual networks for images: blocks, network, table of variants, and one function that makes them.

Two families, both with torchvision's parameter names so that its checkpoints load as they are:

- **ImageNet**: 7×7 stem and max pooling, four stages of basic blocks (18, 34) or bottlenecks (50, 101, 152),
  1×1-projection shortcuts where dimensions change (option B). A bottleneck strides in its 3×3 convolution, as
  torchvision does ("v1.5").
- **CIFAR**: 3×3 stem, three stages of n basic blocks with 16, 32 and 64 channels, 6n + 2 layers, parameter-free
  shortcuts that subsample and pad with zero channels (option A).

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv:1512.03385), sections
3.3, 3.4 and 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from edge_resnet.errors import ModelError


class Add(nn.Module):
    """The residual sum, as a module of its own so that the exported node has a name."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class ZeroPadShortcut(nn.Module):
    """Option A: keeps every ``stride``-th pixel and pads new channels with zeros, half on each side. No parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ProjectionShortcut(nn.Sequential):
    """Option B: a 1×1 convolution with stride, and BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


Shortcut = type[ZeroPadShortcut] | type[ProjectionShortcut]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., figure 5 left)."""

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride, shortcut)
        self.relu1, self.relu2, self.add = nn.ReLU(), nn.ReLU(), Add()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        total: Tensor = self.relu2(self.add(y, self.downsample(x)))
        return total


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride) and 1×1 convolutions and a shortcut (He et al., figure 5 right)."""

    expansion: ClassVar[int] = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(inputs, width * self.expansion, stride, shortcut)
        self.relu1, self.relu2, self.relu3, self.add = nn.ReLU(), nn.ReLU(), nn.ReLU(), Add()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        total: Tensor = self.relu3(self.add(y, self.downsample(x)))
        return total


def _shortcut(inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return shortcut(inputs, outputs, stride)


@dataclass(frozen=True)
class Architecture:
    """One variant of the family: everything that tells it from the others."""

    name: str
    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Literal["7x7", "3x3"]
    shortcut: Shortcut
    size: int
    """Height and width that it was published for; any other size works too."""
    classes: int
    """Classes that it was published for."""


class ResNet(nn.Module):
    """A residual network: normalised float images N×C×H×W in, logits N×classes out."""

    def __init__(self, architecture: Architecture, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.architecture = architecture
        self.channels = channels
        width = architecture.widths[0]
        if architecture.stem == "7x7":
            self.conv1 = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        for stage, (depth, stage_width) in enumerate(zip(architecture.depths, architecture.widths, strict=True), 1):
            stride = 1 if stage == 1 else 2
            blocks = []
            for index in range(depth):
                blocks.append(
                    architecture.block(width, stage_width, stride if index == 0 else 1, architecture.shortcut)
                )
                width = stage_width * architecture.block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, len(self.architecture.depths) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def _initialise(module: nn.Module) -> None:
    """He initialisation for convolutions (He et al., arXiv:1502.01852), which the paper trains from."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


_IMAGENET_WIDTHS = (64, 128, 256, 512)
_CIFAR_WIDTHS = (16, 32, 64)


def _imagenet(name: str, block: type[BasicBlock] | type[Bottleneck], *depths: int) -> Architecture:
    return Architecture(name, block, depths, _IMAGENET_WIDTHS, "7x7", ProjectionShortcut, size=224, classes=1000)


def _cifar(layers: int) -> Architecture:
    depths = ((layers - 2) // 6,) * 3
    return Architecture(f"resnet{layers}", BasicBlock, depths, _CIFAR_WIDTHS, "3x3", ZeroPadShortcut, 32, classes=10)


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        _imagenet("resnet18", BasicBlock, 2, 2, 2, 2),
        _imagenet("resnet34", BasicBlock, 3, 4, 6, 3),
        _imagenet("resnet50", Bottleneck, 3, 4, 6, 3),
        _imagenet("resnet101", Bottleneck, 3, 4, 23, 3),
        _imagenet("resnet152", Bottleneck, 3, 8, 36, 3),
        *(_cifar(layers) for layers in (20, 32, 44, 56, 110)),
    )
}
"""Every architecture by name."""


def architecture_named(name: str) -> Architecture:
    """Looks an architecture up; hyphens, underscores and case do not matter.

    Raises:
        ModelError: no architecture has this name; the message lists those that exist.
    """
    plain = name.lower().replace("-", "").replace("_", "")
    if plain not in ARCHITECTURES:
        raise ModelError(f"unknown architecture '{name}': choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[plain]


def create_model(name: str, *, classes: int | None = None, channels: int = 3) -> ResNet:
    """Makes a network with random weights, in evaluation mode.

    Args:
        name: an architecture's name, such as ``"resnet50"``.
        classes: how many logits; the architecture's published number when None.
        channels: image channels, 1 (grey) or 3.

    Raises:
        ModelError: the name is unknown, or a number is out of range.
    """
    architecture = architecture_named(name)
    classes = architecture.classes if classes is None else classes
    if classes < 1:
        raise ModelError(f"classes is {classes}: give 1 or more")
    if channels not in (1, 3):
        raise ModelError(f"channels is {channels}: give 1 (grey) or 3 (colour)")
    return ResNet(architecture, classes=classes, channels=channels).eval()
