"""The input and output that a network must have to be an engine of this project."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from edge_resnet.errors import EngineError


class Tensor:
    """An input or output: its name, the library's type, and its shape, -1 where a size is free."""

    def __init__(self, name: str, dtype: Any, shape: Iterable[int]) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = tuple(shape)

    @classmethod
    def of(cls, tensor: Any) -> Tensor:
        """That of a network's own tensor."""
        return cls(tensor.name, tensor.dtype, tensor.shape)

    def __str__(self) -> str:
        sizes = "×".join("N" if size == -1 else str(size) for size in self.shape)
        return f"'{self.name}' {self.dtype.name.lower()} {sizes}"

    def is_batch(self, dtype: Any, *ranks: int) -> bool:
        """Whether it has this type and one of these numbers of sizes, of which exactly the first is free."""
        batch, *item = self.shape or (0,)
        return self.dtype == dtype and len(self.shape) in ranks and batch == -1 and min(item) > 0


def check_tensors(trt: ModuleType, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    """Refuses what is not uint8 N×H×W×C in, float32 N×classes, N×channels or N×channels×h×w out.

    Raises:
        EngineError: there are more inputs or outputs, or they have other types or shapes.
    """
    fit = len(inputs) == len(outputs) == 1
    if not (fit and inputs[0].is_batch(trt.DataType.UINT8, 4) and outputs[0].is_batch(trt.DataType.FLOAT, 2, 4)):
        takes, gives = (", ".join(map(str, tensors)) or "nothing" for tensors in (inputs, outputs))
        raise EngineError(
            f"the network takes {takes} and gives {gives}: it must take one uint8 N×H×W×C and give one float32 "
            "N×classes (or features), with only N free (edge-resnet export makes such a model)"
        )
