"""How fast the INT8 CPU engine is, against FP32 and against ONNX Runtime's own INT8, and whether it is exact.

    python benchmarks/cpu_speed.py

ResNet-50, 224×224, one frame at a time, all three run by ONNX Runtime with its default options. The three take turns, one
timed run each a round, so that whatever else the machine does befalls all; speed-ups are medians of the rounds' ratios.
Exact means: the engine answers as its own Q/DQ graph does when that is evaluated node by node.

Exits with 1 when the engine has less than 0.9 of the speed-up of ONNX Runtime's own INT8.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from _common import (
    Frames,
    Row,
    Seconds,
    Table,
    ort_int8,
    paired_seconds,
    parser,
    photo_frames,
    report,
    resnet50,
    sqnr_db,
)

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.quantize import quantize
from edge_resnet.calibration.schemes import SCHEMES
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.engines.ort import OrtEngine

CALIBRATION = 32
FLOOR = 0.9
FP32, ORT, OURS = "FP32", "ONNX Runtime U8S8", "edge-resnet, CPU"


def networks(frames: Frames) -> dict[str, onnx.ModelProto]:
    """The ResNet-50 in three forms."""
    model = resnet50(frames)
    table = collect(model, np.array_split(frames, len(frames) // 8), method="mse", images={}, preprocessing={})
    ours = quantize(model, table, SCHEMES["cpu"], frames[:16]).model
    return {FP32: model, ORT: ort_int8(model, frames), OURS: ours}


def exactness(model: onnx.ModelProto, engine: OrtEngine, frames: Frames) -> float:
    """SQNR of the engine's answers, in dB, against its graph evaluated node by node."""
    return sqnr_db(run_frames(exact_session(model), frames), engine.run(frames))


def speed_row(name: str, seconds: dict[str, Seconds], exact: float) -> Row:
    own = seconds[name]
    p50, p90 = 1e3 * np.percentile(own, [50, 90])
    speedup = float(np.median(seconds[FP32] / own))
    return (name, f"{p50:.1f} ms", f"{p90:.1f} ms", f"{speedup:.2f}×", f"{exact:.0f} dB")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=120, help="timed runs of each (default 120)")
    options = arguments.parse_args()
    frames = np.stack(list(photo_frames(options.shared, CALIBRATION)))
    models = networks(frames)
    engines = {name: OrtEngine(model.SerializeToString()) for name, model in models.items()}
    exact = {name: exactness(models[name], engines[name], frames[:8]) for name in models}
    one = frames[:1]
    seconds = paired_seconds({name: partial(engine.run, one) for name, engine in engines.items()}, options.rounds)
    rows = [speed_row(name, seconds, exact[name]) for name in models]
    share = float(np.median(seconds[ORT] / seconds[OURS]))
    header = ("engine", "median", "90 %", "speed-up", "against its exact evaluation")
    title = (
        f"ResNet-50, 224×224, batch 1, {options.rounds} rounds; edge-resnet has {share:.2f} of ONNX Runtime's speed-up"
    )
    report([Table(title, header, rows)], options.json, share_of_ort_speedup=share)
    if share < FLOOR:
        raise SystemExit(f"the CPU engine has {share:.2f} of ONNX Runtime's speed-up, less than {FLOOR}")


if __name__ == "__main__":
    main()
