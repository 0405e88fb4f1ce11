"""Residual networks for images: shortcuts, blocks, network, and the table of variants.

One network class and two block classes make them all; what tells variants apart is data, an ``Architecture``:

- **V1** (He et al. 2015): convolution, BatchNorm, ReLU; the ReLU of a block stands behind its sum. A bottleneck strides in
  its 3×3 convolution (torchvision's "v1.5", the plain names) or in its first 1×1 (the paper and Keras, names in ``v1``).
- **V2** (He et al. 2016): BatchNorm and ReLU before each convolution, a sum that nothing touches. Strides sit in the first
  block of a stage (the paper and timm, names in ``resnetv2-``) or in the last (Keras, names ending in ``v2``).
- **CIFAR**: a 3×3 stem, three stages of n basic blocks with 16, 32 and 64 channels, 6n + 2 layers.
- **Plain**: the same without shortcuts, for the degradation experiment.
- Relatives: ResNeXt, Wide ResNet, ResNet-D with its stem of three 3×3 convolutions and pooled projections, and MLPerf
  Tiny's ResNet-8 (``resnet8``), which pads as TensorFlow does.

Behind the last stage stands a ``Head``: the classifier, or for a feature extractor a pooling or nothing. Parameters have
torchvision's names, so that its checkpoints load as they are.

Sources: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385) and "Identity Mappings in
Deep Residual Networks" (arXiv:1603.05027); Xie et al., ResNeXt (arXiv:1611.05431); Zagoruyko and Komodakis, Wide ResNet
(arXiv:1605.07146); He, T. et al., "Bag of Tricks", ResNet-D (arXiv:1812.01187).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_resnet.errors import ModelError

# --- shortcuts --------------------------------------------------------------------------------------------------------


class Add(nn.Module):
    """The residual sum, as a module of its own so that the exported node has a name."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class ZeroPadShortcut(nn.Module):
    """Keeps every ``stride``-th pixel and pads new channels with zeros, half on each side. No parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class EvenConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's ``SAME`` does where the image's sides are even: at stride 2, below and to
    the right alone.

    Raises:
        ModelError: at stride 2, when a side is odd.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1):
            return super().forward(x)
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            raise ModelError(f"a feature map of {height}×{width} cannot be halved: give an input size divisible by 4")
        after = self.kernel_size[0] - 2 if self.kernel_size[0] > 1 else 0
        return functional.conv2d(functional.pad(x, (0, after, 0, after)), self.weight, self.bias, self.stride)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _same(inputs: int, outputs: int, stride: int) -> bool:
    return inputs == outputs and stride == 1


def _option_a(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if _same(inputs, outputs, stride) else ZeroPadShortcut(inputs, outputs, stride)


def _option_b(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if _same(inputs, outputs, stride) else _projection(inputs, outputs, stride)


def _pooled_projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    if _same(inputs, outputs, stride):
        return nn.Identity()
    pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, *_projection(inputs, outputs, 1).children())


def _biased_projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if _same(inputs, outputs, stride) else nn.Conv2d(inputs, outputs, 1, stride)


Shortcut = Callable[[int, int, int], nn.Module]
"""(inputs, outputs, stride) → module."""

SHORTCUTS: dict[str, Shortcut] = {
    "A": _option_a,
    "B": _option_b,
    "C": _projection,
    "D": _pooled_projection,
    "E": _biased_projection,
}
"""By name: A, identity with zero-padded channels; B, 1×1 projection where dimensions change; C, projections everywhere
(He et al., section 3.3); D, average pooling before the projection (ResNet-D); E, as B, with a bias in BatchNorm's place
(MLPerf Tiny)."""

# --- blocks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockShape:
    """The convolutions of a block."""

    kernels: tuple[int, ...]
    expansion: int
    """Output channels over the block's width."""
    strided: int
    """Which convolution has the stride, counted from 0."""


BASIC = BlockShape((3, 3), 1, strided=0)
BOTTLENECK = BlockShape((1, 3, 1), 4, strided=1)
BOTTLENECK_V1 = BlockShape((1, 3, 1), 4, strided=0)


@dataclass(frozen=True)
class Preactivation:
    """Where the V2 networks of two libraries differ."""

    strided: Literal["first", "last"]
    """The block of a stage that has the stride."""
    biased: bool
    """Whether the stem, the last convolution of a block and projections have a bias."""
    always_projected: bool
    """Whether the first block of a stage has a projection even where dimensions do not change."""
    zero_padded_pool: bool
    """Whether the stem's pooling takes zeros for what is beyond the border: it matters, as no ReLU stands before it."""


KERAS_V2 = Preactivation("last", biased=True, always_projected=True, zero_padded_pool=True)
PAPER_V2 = Preactivation("first", biased=False, always_projected=False, zero_padded_pool=False)


@dataclass(frozen=True)
class Architecture:
    """One variant of the family: everything that tells it from the others."""

    name: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    shape: BlockShape
    shortcut: str | None
    """One of ``SHORTCUTS``; None: a plain network."""
    stem: Literal["7x7", "3x3", "deep"]
    size: int
    """Height and width that it was published for; any other size works too."""
    classes: int
    """Classes that it was published for."""
    preactivation: Preactivation | None = None
    """None: V1."""
    groups: int = 1
    base_width: int = 64
    """Channels of a bottleneck's 3×3 convolution, a group, in the first stage."""
    epsilon: float = 1e-5
    """Of every BatchNorm; Keras has 1.001e-5."""
    convolution: type[nn.Conv2d] = nn.Conv2d
    """How 3×3 convolutions pad."""

    @property
    def least_side(self) -> int:
        """The least height and width of an image: in the ImageNet family, what five halvings leave a pixel of."""
        return 32 if self.size > 32 else 1

    @property
    def shortcut_is_free(self) -> bool:
        """Whether another of ``SHORTCUTS`` may take its shortcut's place: not in a plain network, nor in V2."""
        return self.shortcut is not None and self.preactivation is None


def _widths(architecture: Architecture, inputs: int, width: int) -> list[int]:
    """Channels before the block and behind each of its convolutions."""
    shape = architecture.shape
    inner = width * architecture.base_width // 64 * architecture.groups if len(shape.kernels) == 3 else width
    return [inputs, *[inner] * (len(shape.kernels) - 1), width * shape.expansion]


def _convolution(architecture: Architecture, channels: Sequence[int], index: int, stride: int, bias: bool) -> nn.Conv2d:
    kernel = architecture.shape.kernels[index]
    return architecture.convolution(
        channels[index],
        channels[index + 1],
        kernel,
        stride if index == architecture.shape.strided else 1,
        padding=kernel // 2,
        groups=architecture.groups if kernel == 3 and len(architecture.shape.kernels) == 3 else 1,
        bias=bias,
    )


class Block(nn.Module):
    """V1: convolutions with BatchNorm, a ReLU between them and one behind the sum (He et al. 2015, figure 5)."""

    def __init__(self, architecture: Architecture, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        channels = _widths(architecture, inputs, width)
        self.steps = range(1, len(channels))
        for i in self.steps:
            self.add_module(f"conv{i}", _convolution(architecture, channels, i - 1, stride, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels[i]))
            self.add_module(f"relu{i}", nn.ReLU())
        self.plain = architecture.shortcut is None
        if architecture.shortcut is not None:
            self.downsample = SHORTCUTS[architecture.shortcut](inputs, channels[-1], stride)
            self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in self.steps:
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            if i == self.steps[-1] and not self.plain:
                y = self.add(y, self.downsample(x))
            y = self.get_submodule(f"relu{i}")(y)
        return y


class PreactivatedBlock(nn.Module):
    """V2: BatchNorm and ReLU before each convolution, nothing behind the sum (He et al. 2016, figure 4e).

    A projection reads the activated tensor. Where only the size changes, as in Keras's networks, the shortcut is a pooling
    of one pixel.
    """

    def __init__(self, architecture: Architecture, inputs: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        channels = _widths(architecture, inputs, width)
        options = architecture.preactivation
        assert options is not None
        self.steps = range(1, len(channels))
        for i in self.steps:
            biased = options.biased and i == self.steps[-1]
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels[i - 1]))
            self.add_module(f"relu{i}", nn.ReLU())
            self.add_module(f"conv{i}", _convolution(architecture, channels, i - 1, stride, biased))
        self.project = first and (options.always_projected or not _same(inputs, channels[-1], stride))
        if self.project:
            self.downsample: nn.Module = nn.Conv2d(inputs, channels[-1], 1, stride, bias=options.biased)
        else:
            self.downsample = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        y, shortcut = x, x
        for i in self.steps:
            y = self.get_submodule(f"relu{i}")(self.get_submodule(f"bn{i}")(y))
            if i == 1 and self.project:
                shortcut = y
            y = self.get_submodule(f"conv{i}")(y)
        total: Tensor = self.add(y, self.downsample(shortcut))
        return total


# --- network ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What stands behind the last stage."""

    pool: Callable[[], nn.Module]
    flatten: Callable[[], nn.Module]
    classifier: bool


HEADS = {
    "classifier": Head(lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, classifier=True),
    "avg": Head(lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, classifier=False),
    "max": Head(lambda: nn.AdaptiveMaxPool2d(1), nn.Flatten, classifier=False),
    "map": Head(nn.Identity, nn.Identity, classifier=False),
}
"""By name: logits N×classes; averages or maxima of the last feature map, N×channels; that map itself, N×channels×h×w."""


class ResNet(nn.Module):
    """A residual network: normalised float images N×C×H×W in; logits N×classes, or features, out.

    Args:
        architecture: which one.
        classes: how many logits; without meaning where the head has no classifier.
        channels: of an image.
        head: one of ``HEADS``.
        source: a module that images pass first, such as another camera's colour correction; the stem has as many input
            channels as it gives.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        classes: int,
        channels: int = 3,
        head: str = "classifier",
        source: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.channels = channels
        self.head = head
        self.source = source or nn.Identity()
        self.stem_channels = channels if source is None else _channels_of(source, channels, architecture.size)
        self._make_stem(self.stem_channels)
        width = architecture.widths[0]
        for stage in range(len(architecture.depths)):
            blocks = self._make_stage(stage, width)
            width = architecture.widths[stage] * architecture.shape.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        if architecture.preactivation is not None:
            self.post_bn = nn.BatchNorm2d(width)
            self.post_relu = nn.ReLU()
        self.avgpool = HEADS[head].pool()
        self.flatten = HEADS[head].flatten()
        self.fc = nn.Linear(width, classes) if HEADS[head].classifier else nn.Identity()
        self.classes = classes if HEADS[head].classifier else None
        self.features = width
        self.size: tuple[int, int] | None = None
        """Height and width that images must have; None: any."""
        for name, module in self.named_modules():
            if not name.startswith("source"):
                _initialise(module, architecture.epsilon)

    def _make_stem(self, channels: int) -> None:
        architecture, width = self.architecture, self.architecture.widths[0]
        options = architecture.preactivation
        self.conv1 = _STEMS[architecture.stem](channels, width, options is not None and options.biased)
        self.bn1 = nn.BatchNorm2d(width) if options is None else nn.Identity()
        self.relu = nn.ReLU() if options is None else nn.Identity()
        self.maxpool: nn.Module = nn.Identity()
        if architecture.stem != "3x3":
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        if options is not None and options.zero_padded_pool:
            self.maxpool = nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))

    def _make_stage(self, stage: int, inputs: int) -> list[nn.Module]:
        architecture, width = self.architecture, self.architecture.widths[stage]
        outputs, depth = width * architecture.shape.expansion, architecture.depths[stage]
        before = [inputs, *[outputs] * (depth - 1)]
        options = architecture.preactivation
        if options is None:
            first = 1 if stage == 0 else 2
            return [Block(architecture, before[i], width, 1 if i else first) for i in range(depth)]
        strides = [1] * depth
        if options.strided == "last":
            strides[-1] = 2 if stage < len(architecture.depths) - 1 else 1
        else:
            strides[0] = 1 if stage == 0 else 2
        return [PreactivatedBlock(architecture, before[i], width, strides[i], first=i == 0) for i in range(depth)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.source(x)))))
        for stage in range(1, len(self.architecture.depths) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        if self.architecture.preactivation is not None:
            x = self.post_relu(self.post_bn(x))
        answer: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return answer


def _channels_of(source: nn.Module, channels: int, size: int) -> int:
    """Channels of the feature map that a module gives for images."""
    try:
        with torch.no_grad():
            given = source.eval()(torch.zeros(1, channels, size, size))
    except Exception as error:  # somebody else's module: any
        raise ModelError(
            f"input_tensor does not take images of {channels} channels ({type(error).__name__}: "
            f"{' '.join(str(error).split())}): give a module that maps N×{channels}×H×W"
        ) from error
    if not isinstance(given, Tensor) or given.ndim != 4:
        raise ModelError("input_tensor gives no feature map: give a module that maps N×C×H×W to N×C×H×W")
    return int(given.shape[1])


def _stem_7x7(channels: int, width: int, bias: bool) -> nn.Module:
    return nn.Conv2d(channels, width, 7, 2, padding=3, bias=bias)


def _stem_3x3(channels: int, width: int, bias: bool) -> nn.Module:
    return nn.Conv2d(channels, width, 3, padding=1, bias=bias)


def _stem_deep(channels: int, width: int, bias: bool) -> nn.Module:
    half = width // 2
    return nn.Sequential(
        nn.Conv2d(channels, half, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, width, 3, padding=1, bias=bias),
    )


_STEMS: dict[str, Callable[[int, int, bool], nn.Module]] = {"7x7": _stem_7x7, "3x3": _stem_3x3, "deep": _stem_deep}


def _initialise(module: nn.Module, epsilon: float) -> None:
    """He initialisation for convolutions (He et al., arXiv:1502.01852), which the paper trains from."""
    if isinstance(module, nn.BatchNorm2d):
        module.eps = epsilon
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # there torch takes its time over nothing
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


CHANNELS = (1, 3)
"""Of images, grey or colour."""

# --- variants ---------------------------------------------------------------------------------------------------------

_IMAGENET = Architecture("", (), (64, 128, 256, 512), BOTTLENECK, "B", "7x7", size=224, classes=1000)
_CIFAR = Architecture("", (), (16, 32, 64), BASIC, "A", "3x3", size=32, classes=10)
_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_BOTTLENECKS = (50, 101, 152)


def _imagenet(name: str, layers: int, **changes: object) -> Architecture:
    shape = BOTTLENECK if layers in _BOTTLENECKS else BASIC
    return replace(_IMAGENET, **{"name": name, "depths": _DEPTHS[layers], "shape": shape, **changes})  # type: ignore[arg-type]


def _cifar(name: str, layers: int, **changes: object) -> Architecture:
    return replace(_CIFAR, **{"name": name, "depths": ((layers - 2) // 6,) * 3, **changes})  # type: ignore[arg-type]


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        *(_imagenet(f"resnet{n}", n) for n in _DEPTHS),
        *(_imagenet(f"resnet{n}v1", n, shape=BOTTLENECK_V1) for n in _BOTTLENECKS),
        *(_imagenet(f"resnet{n}v2", n, preactivation=KERAS_V2) for n in _DEPTHS),
        *(_imagenet(f"resnetv2-{n}", n, preactivation=PAPER_V2) for n in _DEPTHS),
        *(_cifar(f"resnet{n}", n) for n in (20, 32, 44, 56, 110, 1202)),
        _cifar("resnet8", 8, shortcut="E", convolution=EvenConv2d, epsilon=1e-3),
        *(_imagenet(f"plain{n}", n, shortcut=None) for n in (18, 34)),
        *(_cifar(f"plain{n}", n, shortcut=None) for n in (20, 56)),
        _imagenet("resnext50", 50, groups=32, base_width=4),
        _imagenet("resnext101", 101, groups=32, base_width=8),
        _imagenet("resnext101-64x4d", 101, groups=64, base_width=4),
        _imagenet("wide-resnet50", 50, base_width=128),
        _imagenet("wide-resnet101", 101, base_width=128),
        *(_imagenet(f"resnet{n}d", n, stem="deep", shortcut="D") for n in _DEPTHS),
    )
}
"""Every architecture by name."""


def architecture_named(name: str) -> Architecture:
    """Looks an architecture up; hyphens, underscores and case do not matter.

    Raises:
        ModelError: no architecture has this name; the message has the nearest one and lists those that exist.
    """
    known = {_plain(architecture): architecture for architecture in ARCHITECTURES}
    if not isinstance(name, str) or _plain(name) not in known:
        near = difflib.get_close_matches(_plain(str(name)), known, n=1)
        guess = f"did you mean '{known[near[0]]}'? " if near else ""
        raise ModelError(
            f"unknown architecture '{name}': {guess}choose one of {', '.join(ARCHITECTURES)}; any other CNN classifier "
            "can come as ONNX, through `edge-resnet calibrate` or a recipe's onnx (docs/onnx.md)"
        )
    return ARCHITECTURES[known[_plain(name)]]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def create_model(
    name: str,
    *,
    classes: int | None = None,
    channels: int = 3,
    shortcut: str | None = None,
    head: str = "classifier",
    source: nn.Module | None = None,
) -> ResNet:
    """Makes a network with random weights, in evaluation mode.

    Args:
        name: an architecture's name, such as ``"resnet50"``.
        classes: how many logits; the architecture's published number when None.
        channels: image channels, 1 (grey) or 3.
        shortcut: one of ``SHORTCUTS`` in the place of the architecture's own.
        head: one of ``HEADS``.
        source: a module that images pass first; see ``ResNet``.

    Raises:
        ModelError: the name is unknown, or a number is out of range.
    """
    architecture = architecture_named(name)
    if shortcut is not None:
        architecture = replace(architecture, shortcut=_shortcut_for(architecture, shortcut))
    classes = architecture.classes if classes is None else classes
    if classes < 1:
        raise ModelError(f"classes is {classes}: give 1 or more")
    if channels not in CHANNELS:
        raise ModelError(f"channels is {channels}: give 1 (grey) or 3 (colour)")
    return ResNet(architecture, classes=classes, channels=channels, head=head, source=source).eval()


def _shortcut_for(architecture: Architecture, shortcut: str) -> str:
    if shortcut not in SHORTCUTS:
        raise ModelError(f"unknown shortcut '{shortcut}': choose one of {', '.join(SHORTCUTS)}")
    if not architecture.shortcut_is_free:
        raise ModelError(f"{architecture.name} has no choice of shortcuts: leave the shortcut out")
    return shortcut
