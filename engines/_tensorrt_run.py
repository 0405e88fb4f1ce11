"""Running a plan of TensorRT or TensorRT-RTX: page-locked memory, one stream, and a CUDA graph for each shape.

A ``Plan`` is what a process holds once; a ``Worker`` is what one thread uses at a time. Neither knows which library it is.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_resnet.engines._tensorrt_build import NO_REASON
from edge_resnet.engines._tensorrt_log import logger_of
from edge_resnet.engines._tensorrt_tensors import Tensor, check_tensors
from edge_resnet.engines.cuda.api import CudaApi
from edge_resnet.engines.cuda.arrays import DeviceFrames
from edge_resnet.engines.cuda.memory import DeviceBuffer, MappedTensor, StagedTensor
from edge_resnet.engines.cuda.work import Event, Graph, Stream
from edge_resnet.engines.engine import Answers, Frames, InputSpec, Phases
from edge_resnet.errors import EngineError

if TYPE_CHECKING:
    import tensorrt

_LOG = logging.getLogger(__name__)

ALIGNMENT = 256
"""TensorRT reads and writes only at addresses that are multiples of this, in bytes."""
KEPT_GRAPHS = 8
"""Input buffers whose graphs are kept: cameras take turns with a few."""


class Plan:
    """A deserialized engine.

    Raises:
        EngineError: the library refuses it, or its input or output is not as this project makes them.
        UnavailableError: there is no GPU.
    """

    def __init__(self, product: str, trt: ModuleType, data: bytes, api: CudaApi) -> None:
        self.product, self.api = product, api
        logger = logger_of(trt)
        with api.current(), logger.fresh():
            self._runtime: tensorrt.Runtime = trt.Runtime(logger)
            self.engine: tensorrt.ICudaEngine = self._runtime.deserialize_cuda_engine(data)
            self.errors = logger.errors
            if self.engine is None:
                raise EngineError(f"{product} {trt.__version__} cannot load the engine: {self.reason()}")
        self._read_tensors(trt)

    def _read_tensors(self, trt: ModuleType) -> None:
        """Finds the input and the output, and from their shapes ``input`` and ``output``."""
        engine = self.engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        tensors = {name: Tensor(name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name)) for name in names}
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        check_tensors(trt, [tensors[name] for name in inputs], [tensors[name] for name in outputs])
        self.input_name, self.output_name = inputs[0], outputs[0]
        smallest, _, largest = engine.get_tensor_profile_shape(self.input_name, 0)
        _, height, width, channels = tensors[self.input_name].shape
        self.input = InputSpec(height, width, channels, int(largest[0]), int(smallest[0]))
        self.output = tensors[self.output_name].shape[1:]

    def reason(self) -> str:
        """The library's last words."""
        return self.errors[-1] if self.errors else NO_REASON


class Worker:
    """An execution context with its own stream, memory and graphs. Runs of several threads wait for each other.

    The first run of a shape queues its kernels one by one, which TensorRT wants before a capture; from the second on
    they are one graph.

    Args:
        plan: what is run.
        capturable: whether a context's work on a stream, as C's number, can be captured now.
    """

    def __init__(self, plan: Plan, capturable: Callable[[Any, int], bool]) -> None:
        self.plan, self._api, self._capturable = plan, plan.api, capturable
        self._lock = Lock()
        self._graphs: OrderedDict[tuple[int, bool], Graph | None] = OrderedDict()
        self._batch, self._bound, self._plain = 0, 0, False
        with ExitStack() as resources:
            self._stream = Stream(plan.api)
            resources.callback(self._stream.close)
            self._allocate(resources)
            with plan.api.current():
                self._context: tensorrt.IExecutionContext = plan.engine.create_execution_context()
            if self._context is None:
                raise EngineError(f"{plan.product} cannot make an execution context: {plan.reason()}")
            resources.callback(self._forget)
            self._context.set_tensor_address(plan.output_name, self._answers.address)
            self._resources = resources.pop_all()

    def _allocate(self, resources: ExitStack) -> None:
        """Takes memory for the largest batch, once; a view of it for each batch, so that runs make no arrays."""
        spec, batch = self.plan.input, self.plan.input.max_batch or 1
        with self._api.current():
            tensor = MappedTensor if self._api.gpu().integrated else StagedTensor
        self._frames = tensor(self._api, (batch, spec.height, spec.width, spec.channels), np.uint8)
        resources.callback(self._frames.close)
        self._answers = tensor(self._api, (batch, *self.plan.output), np.float32)
        resources.callback(self._answers.close)
        self._pitched: DeviceBuffer | None = None
        self._resources = resources
        self._staged = [self._frames.array[:count] for count in range(batch + 1)]
        self._answered = [self._answers.array[:count] for count in range(batch + 1)]

    def _forget(self) -> None:
        """Graphs before the context that they run, the context before its memory."""
        with self._api.current():
            self._drop_graphs()
            del self._context

    def staging(self, batch: int) -> Frames:
        """Page-locked memory for a batch: frames that are written there need no copy on the host."""
        frames: Frames = self._staged[batch]
        return frames

    def run(self, frames: Frames, out: Answers | None) -> Answers:
        """Answers frames in host memory."""
        batch = len(frames)
        with self._lock, self._api.current():
            if frames is not self._staged[batch]:
                self._staged[batch][...] = frames
            self._execute(batch, self._frames.address, uploads=True)
            return self._answer(batch, out)

    def timed(self, frames: Frames) -> Phases:
        """One run, call by call, with events of the GPU between them."""
        batch = len(frames)
        with self._lock, self._api.current(), ExitStack() as held:
            events = [Event(self._api) for _ in range(4)]
            for event in events:
                held.callback(event.close)
            self._staged[batch][...] = frames
            self._prepare(batch, self._frames.address, uploads=True)
            events[0].record(self._stream)
            self._frames.upload(batch, self._stream)
            events[1].record(self._stream)
            self._run_kernels(batch)
            events[2].record(self._stream)
            self._answers.download(batch, self._stream)
            events[3].record(self._stream)
            self._stream.synchronize()
            copy_in, execute, copy_out = (end.ms_since(start) for start, end in itertools.pairwise(events))
        copies = isinstance(self._frames, StagedTensor)
        return Phases(copy_in if copies else None, execute, copy_out if copies else None)

    def run_device(self, frames: DeviceFrames, stream: int | None, out: Answers | None) -> Answers:
        """Answers frames on the GPU, where they lie if the library can read them there."""
        batch = frames.shape[0]
        with self._lock, self._api.current():
            for other in {number for number in (frames.stream, stream) if number is not None}:
                self._stream.follow(other)
            self._execute(batch, self._readable(frames), uploads=False)
            return self._answer(batch, out)

    @property
    def stream(self) -> int:
        """The stream that reads frames, as C's number."""
        return self._stream.number

    def _readable(self, frames: DeviceFrames) -> int:
        """Where the library can read the frames: aligned and without gaps."""
        if frames.contiguous and frames.address % ALIGNMENT == 0:
            return frames.address
        if self._pitched is None:
            self._pitched = DeviceBuffer(self._api, self._frames.array.nbytes)
            self._resources.callback(self._pitched.close)
        _, height, width, channels = frames.shape
        rows = frames.shape[0] * height
        self._api.copy_rows(
            self._pitched.address, frames.address, frames.pitch, width * channels, rows, self._stream.handle
        )
        return self._pitched.address

    def _execute(self, batch: int, address: int, *, uploads: bool) -> None:
        try:
            self._queue(batch, address, uploads)
            self._stream.synchronize()
        except BaseException:  # Ctrl-C too: nothing of a run that failed stays queued, and the next one starts anew
            self._drop_graphs()
            self._batch = 0
            with suppress(EngineError):
                self._stream.synchronize()
            raise

    def _queue(self, batch: int, address: int, uploads: bool) -> None:
        """Queues a run: as a graph, when it has one; makes one, when it is asked for the second time."""
        known = self._prepare(batch, address, uploads)
        if known and self._graphs[address, uploads] is None and self._api.has_graphs:
            self._graphs[address, uploads] = self._captured(batch, uploads)
        graph = self._graphs[address, uploads]
        if graph is not None:
            graph.launch()
        else:
            self._enqueue(batch, uploads)

    def _prepare(self, batch: int, address: int, uploads: bool) -> bool:
        """Gives the context its shape and address; whether it has run with them before."""
        if batch != self._batch:
            self._drop_graphs()
            spec = self.plan.input
            self._context.set_input_shape(self.plan.input_name, (batch, spec.height, spec.width, spec.channels))
            self._batch = batch
        if address != self._bound:
            self._context.set_tensor_address(self.plan.input_name, address)
            self._bound = address
        known = (address, uploads) in self._graphs
        self._graphs.setdefault((address, uploads), None)
        self._graphs.move_to_end((address, uploads))
        while len(self._graphs) > KEPT_GRAPHS:
            self._close_graphs([self._graphs.popitem(last=False)[1]])
        return known

    def _captured(self, batch: int, uploads: bool) -> Graph | None:
        """The run as a graph; None when the library, now, does what cannot be captured."""
        if self._plain or not self._capturable(self._context, self._stream.number):
            return None
        try:
            return Graph(self._api, self._stream, lambda: self._enqueue(batch, uploads))
        except EngineError as error:
            _LOG.warning("%s runs without CUDA graphs, which is slower: %s", self.plan.product, error)
            self._plain = True
            return None

    def _enqueue(self, batch: int, uploads: bool) -> None:
        if uploads:
            self._frames.upload(batch, self._stream)
        self._run_kernels(batch)
        self._answers.download(batch, self._stream)

    def _run_kernels(self, batch: int) -> None:
        if not self._context.execute_async_v3(self._stream.number):
            raise EngineError(f"{self.plan.product} cannot run a batch of {batch}: {self.plan.reason()}")

    def _answer(self, batch: int, out: Answers | None) -> Answers:
        answers: Answers = self._answered[batch]
        if out is None:
            return answers.copy()
        out[...] = answers
        return out

    def _drop_graphs(self) -> None:
        self._close_graphs(self._graphs.values())
        self._graphs.clear()

    def _close_graphs(self, graphs: Iterable[Graph | None]) -> None:
        for graph in graphs:
            if graph is not None:
                graph.close()

    def close(self) -> None:
        """Waits for what is queued and frees everything; the plan too, when no other worker has it."""
        with self._lock:
            try:
                with self._resources, self._api.current():
                    self._stream.synchronize()
            finally:
                del self.plan
