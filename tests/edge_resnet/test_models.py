"""The architectures, against what He et al. and torchvision published."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from edge_resnet.errors import ModelError
from edge_resnet.models import ARCHITECTURES, ZeroPadShortcut, architecture_named, create_model

TORCHVISION_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
"""``num_params`` in the metadata of torchvision's published weights."""
TORCHVISION_RELATIVES = {
    "resnext50": 25_028_904,
    "resnext101": 88_791_336,
    "resnext101-64x4d": 83_455_272,
    "wide-resnet50": 68_883_240,
    "wide-resnet101": 126_886_696,
}
"""The same, under torchvision's names resnext50_32x4d, resnext101_32x8d, resnext101_64x4d, wide_resnet50_2 and
wide_resnet101_2."""
KERAS_PARAMETERS = {
    "resnet50v1": 25_636_712,
    "resnet101v1": 44_707_176,
    "resnet152v1": 60_419_944,
    "resnet50v2": 25_613_800,
    "resnet101v2": 44_675_560,
    "resnet152v2": 60_380_648,
    "resnet8": 78_666,
}
"""``count_params()`` of keras.applications and of MLPerf Tiny's model, which counts BatchNorm's statistics too."""
TIMM_PARAMETERS = {
    "resnet18d": 11_708_744,
    "resnet34d": 21_816_904,
    "resnet50d": 25_576_264,
    "resnet101d": 44_568_392,
    "resnet152d": 60_212_040,
    "resnetv2-18": 11_687_720,
    "resnetv2-34": 21_795_880,
    "resnetv2-50": 25_549_352,
    "resnetv2-101": 44_541_480,
    "resnetv2-152": 60_185_128,
}
CIFAR_PARAMETERS = {
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
    "resnet1202": 19.4,
}
"""Millions; He et al., table 6."""
RESIDUAL_TWINS = {"plain18": "resnet18", "plain34": "resnet34", "plain20": "resnet20", "plain56": "resnet56"}
UNPUBLISHED = {"resnet18v2", "resnet34v2"}
"""Keras's V2 with two convolutions a block, which Keras has not."""


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in create_model(name).parameters())


@pytest.mark.parametrize(
    ("name", "published"), (TORCHVISION_PARAMETERS | TORCHVISION_RELATIVES | TIMM_PARAMETERS).items()
)
def test_parameter_counts_are_torchvisions_and_timms(name: str, published: int) -> None:
    assert parameters(name) == published


@pytest.mark.parametrize(("name", "published"), KERAS_PARAMETERS.items())
def test_parameter_counts_are_keras(name: str, published: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    statistics = sum(2 * norm.num_features for norm in norms)
    folded = 0 if name.endswith("v2") else sum(norm.num_features for norm in norms)  # V1's convolutions have biases
    assert parameters(name) + statistics + folded == published


@pytest.mark.parametrize(("plain", "residual"), RESIDUAL_TWINS.items())
def test_a_plain_network_is_its_twin_without_shortcuts(plain: str, residual: str) -> None:
    with torch.device("meta"):
        twin = {name: tuple(p.shape) for name, p in create_model(residual).named_parameters()}
        assert {name: tuple(p.shape) for name, p in create_model(plain).named_parameters()} == {
            name: shape for name, shape in twin.items() if "downsample" not in name
        }


@pytest.mark.parametrize(("name", "published"), CIFAR_PARAMETERS.items())
def test_cifar_parameter_counts_are_the_papers(name: str, published: float) -> None:
    digits = 1 if published >= 1 else 2
    assert round(parameters(name) / 1e6, digits) == published


def test_every_architecture_has_a_published_count() -> None:
    published = TORCHVISION_PARAMETERS | TORCHVISION_RELATIVES | KERAS_PARAMETERS | TIMM_PARAMETERS | CIFAR_PARAMETERS
    assert set(ARCHITECTURES) == {*published, *RESIDUAL_TWINS, *UNPUBLISHED}


def torchvision_names(depths: tuple[int, ...], convolutions: int, projected: tuple[int, ...]) -> Iterator[str]:
    """Names in torchvision's state_dict: ``projected`` are the stages whose first block has a downsample."""

    def norm(name: str) -> Iterator[str]:
        for tensor in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            yield f"{name}.{tensor}"

    yield "conv1.weight"
    yield from norm("bn1")
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for index in range(1, convolutions + 1):
                yield f"{prefix}.conv{index}.weight"
                yield from norm(f"{prefix}.bn{index}")
            if block == 0 and stage in projected:
                yield f"{prefix}.downsample.0.weight"
                yield from norm(f"{prefix}.downsample.1")
    yield from ("fc.weight", "fc.bias")


@pytest.mark.parametrize(
    ("name", "expected", "count"),
    [
        ("resnet18", list(torchvision_names((2, 2, 2, 2), 2, (2, 3, 4))), 122),
        ("resnet50", list(torchvision_names((3, 4, 6, 3), 3, (1, 2, 3, 4))), 320),
    ],
)
def test_names_are_torchvisions(name: str, expected: list[str], count: int) -> None:
    assert len(expected) == count, "torchvision's own state_dict has this many entries"
    assert list(create_model(name).state_dict()) == expected


def test_a_bottleneck_strides_in_its_3x3_convolution() -> None:
    strides = {name: m.stride for name, m in create_model("resnet50").named_modules() if isinstance(m, torch.nn.Conv2d)}
    block = {name: stride for name, stride in strides.items() if name.startswith("layer2.0.")}
    assert block == {
        "layer2.0.conv1": (1, 1),
        "layer2.0.conv2": (2, 2),
        "layer2.0.conv3": (1, 1),
        "layer2.0.downsample.0": (2, 2),
    }


@pytest.mark.parametrize(("inputs", "outputs", "side"), [(16, 32, 32), (32, 64, 7), (1, 4, 5)])
def test_option_a_subsamples_and_pads_channels(inputs: int, outputs: int, side: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, inputs, side, side)).astype(np.float32)
    half = (side + 1) // 2
    expected = np.zeros((2, outputs, half, half), np.float32)
    first = (outputs - inputs) // 2
    for row in range(half):
        for column in range(half):
            expected[:, first : first + inputs, row, column] = x[:, :, 2 * row, 2 * column]
    assert np.array_equal(ZeroPadShortcut(inputs, outputs, 2)(torch.from_numpy(x)).numpy(), expected)


def test_option_a_has_no_parameters_in_the_cifar_family() -> None:
    names = create_model("resnet20").state_dict()
    assert not [name for name in names if "downsample" in name]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_the_asked_shape(name: str, channels: int) -> None:
    with torch.device("meta"):
        model = create_model(name, classes=7, channels=channels)
        logits = model(torch.zeros(2, channels, 40, 56))
    assert logits.shape == (2, 7)
    assert not model.training


@pytest.mark.parametrize(
    ("name", "last"), [("resnet18", (512, 7, 7)), ("resnet50", (2048, 7, 7)), ("resnet20", (64, 8, 8))]
)
def test_the_last_feature_map_is_the_papers(name: str, last: tuple[int, ...]) -> None:
    size, seen = ARCHITECTURES[name].size, []
    with torch.device("meta"):
        model = create_model(name)
        model.avgpool.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[1:])))
        model(torch.zeros(1, 3, size, size))
    assert seen == [last]


@pytest.mark.parametrize("name", ["resnet50", "ResNet-50", "resnet_50", "RESNET50"])
def test_hyphens_underscores_and_case_do_not_matter(name: str) -> None:
    assert architecture_named(name).name == "resnet50"


def test_an_unknown_name_has_the_nearest_and_lists_the_known() -> None:
    with pytest.raises(ModelError) as caught:
        create_model("ResNet-1")
    assert str(caught.value) == (
        f"unknown architecture 'ResNet-1': did you mean 'resnet18'? choose one of {', '.join(ARCHITECTURES)}; any "
        "other CNN classifier can come as ONNX, through `edge-resnet calibrate` or a recipe's onnx (docs/onnx.md)"
    )
    assert all(known in str(caught.value) for known in ("resnet18", "resnet152", "resnet110"))


@pytest.mark.parametrize(
    ("classes", "channels", "message"),
    [
        (0, 3, "classes is 0: give 1 or more"),
        (10, 4, r"channels is 4: give 1 \(grey\) or 3 \(colour\)"),
    ],
)
def test_numbers_out_of_range(classes: int, channels: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("resnet20", classes=classes, channels=channels)
