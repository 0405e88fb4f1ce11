"""Fine-tuning without labels: a network that has lost channels or weights learns to answer as the whole one does.

The whole network is the teacher (Hinton et al., arXiv:1503.02531): the error is that of the answers as they are and, as a
trunk keeps its width, of what every block hands on (Romero et al., "FitNets", arXiv:1412.6550), each as a share of its own
power. All weights and biases of convolutions and linear layers learn; BatchNorm is a part of them in the graph, or stays as
it is. What is masked stays 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from edge_resnet.calibration.gradients import reproducible, threads_for
from edge_resnet.calibration.refine import reported
from edge_resnet.calibration.simulate import fast_session
from edge_resnet.calibration.topology import activated, load_graph, residual_adds
from edge_resnet.calibration.torch_graph import constants_of, run_nodes
from edge_resnet.engines.engine import Progress

BATCH = 32
RATE = 0.02
"""Of Adam, in units: a weight's is the root mean square of its output channel's, a bias's that of the layer's biases."""
JUDGES = 8
"""One in so many frames judges, and the best state that was looked at is the result."""
LOOKS = 8
BLOCKS = 1.0
"""Weight of all blocks' errors together, against that of the answers."""
_WEIGHTED = ("Conv", "Gemm", "MatMul")

Frames = npt.NDArray[np.uint8]


def finetune(
    student: onnx.ModelProto,
    teacher: onnx.ModelProto,
    frames: Frames,
    steps: int,
    masks: Mapping[str, npt.NDArray[np.bool_]],
    progress: Progress,
) -> onnx.ModelProto:
    """The student with weights and biases that were learned; as it is where learning brings it no nearer.

    Args:
        student: prepared; its tensors between blocks have the teacher's names.
        teacher: the whole network.
        frames: N×H×W×C, without labels; two or more.
        steps: of learning, a batch of ``BATCH`` each.
        masks: by weight, where it may be other than 0; all of the others may.
        progress: told of steps.

    Raises:
        CalibrationError: an operator has no gradient here (``torch_graph``).
    """
    pupil, master = _Pupil.of(student, masks), _Master.of(teacher, student)
    every = min(JUDGES, len(frames))
    judging = np.arange(len(frames)) % every == every - 1
    shown, held = frames[~judging], frames[judging]
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(list(pupil.steps.values()), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    look = max(1, steps // LOOKS)
    with reproducible(threads_for(frames)):
        least, best = _judged(pupil, master, held), pupil.written()
        for step in reported(range(1, steps + 1), "fine-tuning", progress):
            drawn = torch.randperm(len(shown), generator=random)[:BATCH].numpy()
            optimizer.zero_grad()
            torch.stack(_errors(pupil, master, shown[drawn])).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if (step % look == 0 or step == steps) and (error := _judged(pupil, master, held)) < least:
                least, best = error, pupil.written()
    return best


def _judged(pupil: _Pupil, master: _Master, frames: Frames) -> float:
    """The error of the answers alone."""
    parts = [frames[start : start + BATCH] for start in range(0, len(frames), BATCH)]
    with torch.no_grad():
        return sum(float(_errors(pupil, master, part)[0]) * len(part) for part in parts)


def _errors(pupil: _Pupil, master: _Master, frames: Frames) -> list[Tensor]:
    """Of the answers, and of each block's tensor: what is summed over them is the loss."""
    wanted, made = master.run(frames), pupil.run(frames)
    answers, *blocks = (_share(made[name], tensor) for name, tensor in wanted.items())
    return [answers, *(BLOCKS / len(blocks) * block for block in blocks)]


def _share(made: Tensor, wanted: Tensor) -> Tensor:
    """Of the wanted tensor's power."""
    return (made - wanted).square().mean() / wanted.square().mean().clamp_min(1e-30)


@dataclass(frozen=True)
class _Pupil:
    """The student, and what it learns, each by the constant's name."""

    model: onnx.ModelProto
    constants: Mapping[str, Tensor]
    units: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    steps: Mapping[str, Tensor]
    """In units."""

    @classmethod
    def of(cls, model: onnx.ModelProto, masks: Mapping[str, npt.NDArray[np.bool_]]) -> _Pupil:
        constants = constants_of(model)
        read = [name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input[1:]]
        units = {name: _unit(constants[name]) for name in dict.fromkeys(read) if name in constants}
        return cls(
            model,
            constants,
            units,
            {name: torch.from_numpy(mask) for name, mask in masks.items()},
            {name: torch.zeros_like(constants[name], requires_grad=True) for name in units},
        )

    def values(self) -> dict[str, Tensor]:
        made = {name: self.constants[name] + self.steps[name] * unit for name, unit in self.units.items()}
        return {name: value * self.masks[name] if name in self.masks else value for name, value in made.items()}

    def run(self, frames: Frames) -> dict[str, Tensor]:
        tensors = {**self.constants, **self.values(), self.model.graph.input[0].name: torch.from_numpy(frames)}
        run_nodes(self.model.graph.node, tensors)
        return tensors

    def written(self) -> onnx.ModelProto:
        made = onnx.ModelProto()
        made.CopyFrom(self.model)
        values = self.values()
        for constant in made.graph.initializer:
            if constant.name in values:
                array = values[constant.name].detach().numpy()
                constant.CopyFrom(numpy_helper.from_array(array, constant.name))
        return made


def _unit(value: Tensor) -> Tensor:
    """The root mean square of each output channel's weights; of a linear layer's and of biases, of all."""
    axes = tuple(range(1 if value.ndim == 4 else 0, value.ndim))
    return value.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-6)


@dataclass(frozen=True)
class _Master:
    """The teacher, and what of it the student is held against."""

    session: onnxruntime.InferenceSession
    names: Sequence[str]
    """Its answers, then what its blocks hand on."""

    @classmethod
    def of(cls, teacher: onnx.ModelProto, student: onnx.ModelProto) -> _Master:
        there = {name for node in student.graph.node for name in node.output}
        sums = [str(activated(add).name) for add in residual_adds(load_graph(teacher).graph)]
        blocks = [name for name in sums if name in there]
        shown = onnx.ModelProto()
        shown.CopyFrom(teacher)
        for index, name in enumerate(blocks):  # under another name: one of them may be an output already
            shown.graph.node.append(helper.make_node("Identity", [name], [f"block.{index}"]))
            shown.graph.output.append(helper.make_tensor_value_info(f"block.{index}", TensorProto.FLOAT, None))
        session = fast_session(shown, threads=1)  # more would spin behind each run, and take torch's processors
        return cls(session, [teacher.graph.output[0].name, *blocks])

    def run(self, frames: Frames) -> dict[str, Tensor]:
        answers = self.session.run(None, {self.session.get_inputs()[0].name: frames})
        return {name: torch.from_numpy(answer) for name, answer in zip(self.names, answers, strict=True)}
