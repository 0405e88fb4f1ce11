"""Checkpoint file → network: reads the weight files that people have, and loads those that fit exactly.

Nothing in a file is executed: torch's formats are read with ``weights_only=True``, and safetensors hold no code.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_resnet import keras_weights
from edge_resnet.errors import EdgeResnetError, ModelError
from edge_resnet.keras_config import check_description
from edge_resnet.limits import check, check_file
from edge_resnet.models import (
    ARCHITECTURES,
    CHANNELS,
    HEADS,
    SHORTCUTS,
    Architecture,
    ResNet,
    architecture_named,
    create_model,
)
from edge_resnet.preprocessing import NAMED, Preprocessing
from edge_resnet.torch_archive import check_unpacked

WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net"),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict"),
)
"""Keys under which training scripts save the weights, and averages of them over training, beside epochs and optimizers."""
DROPPED = ("module", "_orig_mod")
"""Parts of names that ``DataParallel`` and ``torch.compile`` add."""
RENAMED = {"linear": "fc", "shortcut": "downsample"}
"""Parts of names that published CIFAR checkpoints have, and torchvision's names for them."""

TIMM_V2 = (
    (r"^stem\.conv\.", "conv1."),
    (r"^stages\.0\.blocks\.", "layer1."),
    (r"^stages\.1\.blocks\.", "layer2."),
    (r"^stages\.2\.blocks\.", "layer3."),
    (r"^stages\.3\.blocks\.", "layer4."),
    (r"\.norm([123])\.", r".bn\1."),
    (r"\.downsample\.conv\.", ".downsample."),
    (r"^norm\.", "post_bn."),
    (r"^head\.fc\.", "fc."),
)
"""Names in timm's ResNet V2 as patterns, and ours; replaced one after the other."""
SHELVES = ("EDGE_RESNET_WEIGHTS", "~/.cache/edge-resnet/weights")
"""Where ``"imagenet"`` looks: the folder that this variable names, or else this one."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_DIMENSIONS = 8
"""Other tensors may lie beside the weights; of more dimensions than 64 torch computes nothing."""
_COUNTERS = ("num_batches_tracked", "n_averaged")
"""Endings of the names of training's own counts, BatchNorm's (older checkpoints lack it) and ``AveragedModel``'s: inference
reads neither."""
_DEEPEST = 3
"""Dicts inside each other in which weights are looked for; one may hold itself."""
_CHANNELS = {1: "1 channel (grey)", 3: "3 channels (colour)"}
_NAMES_SHOWN = 3
_KEYS_SHOWN = 12
_WAY_ON = "export the network to ONNX and calibrate that"
"""For whoever has a network that is not among ours."""
_TRUNK = ("conv1.", "bn1.", "layer", "post_bn.")
"""How the names of all tensors but a classifier's begin."""
_BLOCK_TENSORS = 10
"""The fewest that a block has: two convolutions, and two BatchNorms of four."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint, by torchvision's names.

    The weights may stand at the top or under one of ``WRAPPERS``; entries that are no tensors are ignored. A file with
    several sets of weights, as of a model and its moving average, is refused: nobody knows which is meant. Weights in
    float16, bfloat16 and float64 become float32, the former two exactly, the last rounded; integers stay as they are.

    Args:
        path: ``.pt``, ``.pth``, ``.th``, ``.bin``, ``.ckpt`` or ``.tar`` (``.pth.tar``), written by ``torch.save``;
            ``.safetensors``; or Keras's ``.h5`` (``.weights.h5`` too) or ``.keras``.

    Returns:
        Tensors on the CPU, at least one.

    Raises:
        ModelError: the file is missing, of another kind, damaged, holds anything but plain data and tensors (a whole
            module, code), or no tensors, several sets of them, or a weight that is NaN or infinite as float32.
        UnavailableError: a Keras file, and h5py is not installed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ModelError(f"{path} has the unknown suffix '{path.suffix}': give one of {', '.join(_READERS)}")
    if path.is_dir():
        raise ModelError(f"{path} is a folder: give a checkpoint file")
    check_file(path, "checkpoint_bytes", ModelError)
    try:
        content = reader(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist: check the path") from error
    except PermissionError as error:
        raise ModelError(f"{path} cannot be read: change its permissions") from error
    tensors: dict[str, Tensor] = {}
    found = _named_tensors(path, content)
    size = sum(4 * tensor.numel() for tensor in found.values())  # a tensor may show one value in many places
    check(size, "checkpoint_bytes", str(path), ModelError, "bytes of tensors")
    for name, tensor in found.items():
        ours = _torchvision_name(name)
        if ours in tensors:
            raise ModelError(f"{path} has '{name}' and another name for it: save one state_dict alone")
        tensors[ours] = _as_float32(path, name, tensor)
    tensors = _without_common_prefix(tensors)
    return _from_timm_v2(tensors) if "stages.0.blocks.0.norm1.weight" in tensors else tensors


def load_model(
    arch: str,
    weights: Path | None,
    *,
    classes: int | None = None,
    channels: int | None = None,
    shortcut: str | None = None,
    head: str = "classifier",
    source: nn.Module | None = None,
) -> ResNet:
    """Makes a network and gives it a checkpoint's weights, all of them and no others.

    Weights from Keras fit its own architectures only, whatever their shapes: others stride elsewhere. The network then has
    Keras's epsilon, and a file that describes its model must describe this one. A feature extractor leaves a checkpoint's
    classifier out.

    Args:
        arch: an architecture's name, such as ``"resnet50"``.
        weights: the checkpoint; ``imagenet`` for the file that ``locate`` finds; None leaves the weights random.
        classes: how many logits; None takes the checkpoint's number (without one, the architecture's).
        channels: image channels, 1 or 3; None takes the checkpoint's number (without one, 3).
        shortcut: one of ``SHORTCUTS`` in the place of the architecture's own.
        head: one of ``HEADS``.
        source: a module that images pass first; a checkpoint does not hold its weights.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        ModelError: the architecture is unknown, ``read_checkpoint`` refuses the file, it has other numbers of classes or
            channels than were asked for, or it does not fit; then the message names an architecture that does.
    """
    architecture = architecture_named(arch)
    if weights is None:
        return create_model(arch, classes=classes, channels=channels or 3, shortcut=shortcut, head=head, source=source)
    weights = locate(architecture.name, weights)
    tensors = _parameters(weights, classifier=HEADS[head].classifier)
    classes = _agreed("classes", classes, _dimension(tensors, "fc.weight", 0, of=2), weights)
    stem = "conv1.0.weight" if "conv1.0.weight" in tensors else "conv1.weight"
    taken = _dimension(tensors, stem, 1, of=4)
    if source is None:
        channels = _channels(channels, taken, weights)
    model = create_model(arch, classes=classes, channels=channels or 3, shortcut=shortcut, head=head, source=source)
    if source is not None and taken not in (None, model.stem_channels):
        raise ModelError(
            f"input_tensor gives {model.stem_channels} channels, but {weights} takes {taken}: give a module with {taken}"
        )
    _require_fit(weights, tensors, model)
    model.load_state_dict(tensors, strict=False)
    if _is_keras(weights):
        _set_epsilon(model, keras_weights.EPSILON.get(architecture.name, architecture.epsilon))
        _check_keras(weights, model)
    return model.eval()


def _parameters(path: Path, *, classifier: bool) -> dict[str, Tensor]:
    """What a checkpoint has for a network, with its classifier or without."""
    tensors = {name: tensor for name, tensor in read_checkpoint(path).items() if not name.endswith(_COUNTERS)}
    if not classifier:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    without_top = all(name.startswith((*_TRUNK, "fc.")) for name in tensors)
    tensors = {name.removeprefix(keras_weights.OWN_HEAD): tensor for name, tensor in tensors.items()}
    _require_classifier(path, tensors, without_top=without_top)
    return tensors


def _is_keras(path: Path) -> bool:
    return path.suffix.lower() in keras_weights.SUFFIXES


def _require_fit(path: Path, tensors: Mapping[str, Tensor], model: ResNet) -> None:
    misfit = _misfit(model, tensors)
    candidates = keras_weights.ARCHITECTURES if _is_keras(path) else tuple(ARCHITECTURES)
    if misfit.count or model.architecture.name not in candidates:
        why = str(misfit) or "Keras has the stride in another convolution"
        nearest = _nearest(model, tensors, candidates)
        raise ModelError(f"{path} does not fit {_called(model.architecture)} ({why}): {nearest}")


def locate(arch: str, weights: Path) -> Path:
    """The file that is meant: for ``imagenet``, one that the user has put where ``SHELVES`` say; nothing is downloaded.

    Raises:
        ModelError: no such file; the message says where to put it.
    """
    if str(weights) != "imagenet":
        return weights
    variable, default = SHELVES
    shelf = Path(os.environ.get(variable) or default).expanduser()
    places = [shelf / f"{arch}{suffix}" for suffix in _READERS]
    found = [place for place in places if place.is_file()]
    if not found:
        others = ", ".join(suffix for suffix in _READERS if suffix != ".pth")
        raise ModelError(
            f"weights 'imagenet' are not downloaded: put a checkpoint of {arch} at {shelf / arch}.pth "
            f"(or {others}; {variable} names another folder), or give its path"
        )
    return found[0]


def own_preprocessing(arch: str, weights: Path) -> Preprocessing | None:
    """The preprocessing that a checkpoint's maker fixed: Keras's for its own networks; None where nobody can know."""
    architecture = architecture_named(arch).name
    if not _is_keras(locate(architecture, weights)):
        return None
    name = keras_weights.PREPROCESSING.get(architecture)
    return None if name is None else NAMED[name]


def _require_classifier(path: Path, tensors: Mapping[str, Tensor], *, without_top: bool) -> None:
    """Refuses a trunk without a classifier; ``without_top``: it could be read for its features."""
    stems = ("conv1.weight", "conv1.0.weight")
    if "fc.weight" not in tensors and any(stem in tensors for stem in stems) and "layer1.0.conv1.weight" in tensors:
        others = [name for name in tensors if not name.startswith(_TRUNK)]
        features = ", or take features, without the top" if without_top else ""
        raise ModelError(
            f"{path} has no classifier of one layer ('fc.weight', 'predictions' in Keras"
            f"{f'; it has {_first(tuple(others))}' if others else ''}): give it that name, or {_WAY_ON}{features}"
        )


def _from_timm_v2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet V2 of timm by our names; its classifier is a 1×1 convolution."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, ours in TIMM_V2:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor.flatten(1) if name == "fc.weight" else tensor
    return renamed


def _set_epsilon(model: ResNet, epsilon: float) -> None:
    """Gives every BatchNorm another epsilon, and the architecture with them."""
    model.architecture = replace(model.architecture, epsilon=epsilon)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = epsilon


def _read_torch(path: Path) -> object:
    """Reads what ``torch.save`` wrote, if it is plain data and tensors."""
    try:
        check_unpacked(path)
        with warnings.catch_warnings():  # what torch warns of here, it refuses next
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, EdgeResnetError):
        raise
    except Exception as error:  # damaged files lead it to any: RuntimeError, KeyError, UnicodeDecodeError, EOFError, …
        if not isinstance(error, pickle.UnpicklingError) and "weights_only" not in str(error):
            raise _damaged(path) from error
        kind = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = f" (it holds '{kind.group(1)}', which loading would execute)" if kind else ""
        raise ModelError(
            f"{path} is no checkpoint of tensors only{found}: "
            "re-save the weights alone, torch.save(model.state_dict(), 'weights.pth')"
        ) from error


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # SafetensorError is documented, but dtypes that torch lacks raise others
        raise _damaged(path) from error


def _read_keras(path: Path) -> object:
    try:
        return {name: torch.from_numpy(array) for name, array in keras_weights.read_keras(path).items()}
    except (FileNotFoundError, PermissionError, EdgeResnetError):
        raise
    except Exception as error:  # h5py: OSError, KeyError, RuntimeError, …; zipfile: BadZipFile, zlib.error, …
        raise _damaged(path) from error


def _check_keras(path: Path, model: ResNet) -> None:
    try:
        check_description(path, model)
    except EdgeResnetError:
        raise
    except (
        Exception
    ) as error:  # whatever a description leads to that is not Keras's: KeyError, TypeError, ValueError, …
        raise ModelError(
            f"{path} describes its model as Keras does not: save it again, or its weights alone"
        ) from error


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path} is damaged, cut short or no checkpoint: copy or download it again")


_READERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys((".pt", ".pth", ".th", ".bin", ".ckpt", ".tar"), _read_torch),
    ".safetensors": _read_safetensors,
    **dict.fromkeys(keras_weights.SUFFIXES, _read_keras),
}
"""How to read a checkpoint, by its suffix."""


def _named_tensors(path: Path, content: object) -> dict[str, Tensor]:
    """Finds the weights in what a file holds."""
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}: it must hold a dict of tensors, a state_dict")
    found = _state_dicts(content, _DEEPEST)
    if not found:
        keys = _first(tuple(map(repr, content)), _KEYS_SHOWN) or "nothing"
        raise ModelError(f"{path} holds no tensors, but {keys}: save model.state_dict() itself")
    if len(found) > 1:
        *_, last = found
        raise ModelError(
            f"{path} holds several sets of weights, {' and '.join(found)}: save one alone, "
            f"such as torch.save(torch.load('{path.name}', weights_only=True){last}, 'weights.pth')"
        )
    return next(iter(found.values()))


def _without_common_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names less what stands in front of all of them: Lightning's ``model.``, or another attribute's name."""
    first, _, _ = next(iter(tensors)).partition(".")
    if len(tensors) < 2 or not all(name.startswith(f"{first}.") for name in tensors):
        return tensors
    return _without_common_prefix({name.removeprefix(f"{first}."): tensor for name, tensor in tensors.items()})


def _state_dicts(content: object, levels: int) -> dict[str, dict[str, Tensor]]:
    """The sets of tensors in a dict, by where they are: ``['model']``; those inside before its own.

    Under a key that is none of ``WRAPPERS``, such as ``averaged``, a set counts if it is one of a convolutional network.
    """
    if not isinstance(content, Mapping) or levels == 0:
        return {}
    wrapped = {
        f"['{key}']{place}": tensors
        for key, inner in content.items()
        if isinstance(key, str)
        for place, tensors in _state_dicts(inner, levels - 1).items()
        if key in WRAPPERS or _has_convolutions(tensors)
    }
    own = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return wrapped or ({"": own} if own else {})


def _has_convolutions(tensors: Mapping[str, Tensor]) -> bool:
    """Whether they are a network's; an optimizer's moments have the shapes of weights, but not their names."""
    return any(name.endswith(".weight") and tensor.ndim == 4 for name, tensor in tensors.items())


def _torchvision_name(name: str) -> str:
    return ".".join(RENAMED.get(part, part) for part in name.split(".") if part not in DROPPED)


def _as_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.is_meta or tensor.layout is not torch.strided:
        raise ModelError(f"{path}: '{name}' is a sparse tensor or one without values: save plain, dense weights")
    if tensor.ndim > _MOST_DIMENSIONS:
        raise ModelError(f"{path}: '{name}' has {tensor.ndim} dimensions: weights of a ResNet have 4 at most")
    if tensor.dtype not in _FLOATS:
        return tensor.detach()
    values = tensor.detach().to(torch.float32)
    if not torch.isfinite(values).all():
        raise ModelError(
            f"{path}: '{name}' has NaN or infinite values: take a checkpoint from before training diverged"
        )
    return values


def _dimension(tensors: Mapping[str, Tensor], name: str, axis: int, *, of: int) -> int | None:
    """Length of a tensor along an axis; None when it is missing or has not ``of`` axes."""
    tensor = tensors.get(name)
    return tensor.shape[axis] if tensor is not None and tensor.ndim == of else None


def _agreed(what: str, asked: int | None, found: int | None, path: Path) -> int | None:
    if asked is not None and found is not None and asked != found:
        raise ModelError(f"{what} is {asked}, but {path} has {found}: give {found}, or leave it out")
    return asked if found is None else found


def _channels(asked: int | None, found: int | None, path: Path) -> int | None:
    if found not in (None, *CHANNELS):
        raise ModelError(f"{path} takes images of {found} channels: only 1 (grey) and 3 (colour) are supported")
    if asked is not None and found is not None and asked != found:
        raise ModelError(
            f"{path} takes images of {_CHANNELS[found]}, but the input has {_CHANNELS[asked]}: "
            "give the input shape and preprocessing that it was trained with"
        )
    return asked if found is None else found


@dataclass(frozen=True)
class _Misfit:
    """Where a checkpoint and a network differ."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    different: tuple[str, ...]
    """Of another shape or dtype, in words."""

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.different)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("different", self.different))
        return "; ".join(f"{kind}: {_first(names)}" for kind, names in kinds if names)


def _first(names: tuple[str, ...], shown: int = _NAMES_SHOWN) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _misfit(model: ResNet, tensors: Mapping[str, Tensor]) -> _Misfit:
    wanted = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith(_COUNTERS) and not name.startswith("source.")
    }
    return _Misfit(
        missing=tuple(name for name in wanted if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in wanted),
        different=tuple(
            f"{name} is {_form(tensors[name])}, not {_form(tensor)}"
            for name, tensor in wanted.items()
            if name in tensors and _form(tensors[name]) != _form(tensor)
        ),
    )


def _form(tensor: Tensor) -> str:
    """Shape, and dtype unless it is float32: ``64×3×7×7``, ``int8 10``."""
    dtype = "" if tensor.dtype == torch.float32 else f"{tensor.dtype} ".removeprefix("torch.")
    return dtype + ("×".join(str(length) for length in tensor.shape) or "scalar")


def _called(architecture: Architecture) -> str:
    own = architecture.shortcut == ARCHITECTURES[architecture.name].shortcut
    return architecture.name if own else f"{architecture.name} with shortcut {architecture.shortcut}"


def _nearest(asked: ResNet, tensors: Mapping[str, Tensor], candidates: tuple[str, ...]) -> str:
    """Says which of some architectures, or of the asked one with other shortcuts, the checkpoint fits or is nearest to."""
    known = [ARCHITECTURES[name] for name in candidates]
    variants = [each for each in known if sum(each.depths) * _BLOCK_TENSORS <= 2 * len(tensors)]
    if asked.architecture.name in candidates and asked.architecture.shortcut_is_free:
        variants += [replace(ARCHITECTURES[asked.architecture.name], shortcut=shortcut) for shortcut in SHORTCUTS]
    with torch.device("meta"):  # shapes only: no memory
        models = {
            _called(variant): ResNet(variant, classes=asked.classes or 1, channels=asked.stem_channels, head=asked.head)
            for variant in variants
        }
    misfits = {name: _misfit(model, tensors).count for name, model in models.items()}
    fitting = [name for name, count in misfits.items() if count == 0]
    if fitting:
        return f"it fits {' or '.join(fitting)}"
    name = min(misfits, key=misfits.__getitem__, default=None)
    if name is None or misfits[name] > len(tensors) / 2:
        return f"it is near none of the known architectures (see 'edge-resnet models'): {_WAY_ON}"
    return f"it fits none exactly; the nearest is {name}, from which {misfits[name]} tensors differ: {_WAY_ON}"
