"""From a 1080p camera frame to its label on a CPU: this runtime against the straightforward script.

    python benchmarks/frame_to_label.py [--rounds 150]

ResNet-50, 224×224. The script is what people write: Pillow's resize and crop, mean and deviation in NumPy, FP32 in ONNX
Runtime with its default options, softmax. Ours is ``Classifier`` with the INT8 bundle of the same network. A bare loop of
``session.run`` on prepared frames says how steady the machine is: the tail of ours is held against its tail. All three take
turns, one timed run each a round; overhead is what a call takes beside preparing and running.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from _common import Table, paired_seconds, parser, photo_frames, report, resnet50
from PIL import Image

import edge_resnet
from edge_resnet.export import export_float_onnx
from edge_resnet.models import create_model
from edge_resnet.onnx_file import save_onnx
from edge_resnet.preprocessing import NAMED
from edge_resnet.recipe import AccuracyRecipe, BuildRecipe, CalibrationRecipe, ModelRecipe, QuantizeRecipe, Recipe

SCRIPT, OURS, BARE = "script: Pillow, FP32", "Classifier, INT8", "bare session.run, INT8"
LABELS = tuple(str(index) for index in range(1000))
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def bundle(shared: Path, folder: Path) -> Path:
    """An INT8 bundle for this CPU of a ResNet-50 with random weights."""
    frames = np.stack(list(photo_frames(shared, 32)))
    model, labels = folder / "resnet50.onnx", folder / "labels.txt"
    save_onnx(resnet50(frames), model)
    labels.write_text("\n".join(LABELS), encoding="utf-8")
    recipe = Recipe(
        model=ModelRecipe(onnx=model, labels=labels),
        preprocessing={},
        calibration=CalibrationRecipe(shared / "data" / "photos"),
        quantize=QuantizeRecipe(effort="fast"),
        accuracy=AccuracyRecipe(),
        build=BuildRecipe(output=folder / "resnet50.edge"),
    )
    assert edge_resnet.build(recipe).failures == ()
    return recipe.build.output


class Script:
    """What people write."""

    def __init__(self, folder: Path) -> None:
        path = folder / "float.onnx"
        save_onnx(export_float_onnx(create_model("resnet50").eval(), (224, 224)), path)
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, frame: np.ndarray) -> str:
        image = Image.fromarray(frame)
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
        images = ((pixels - MEAN) / STD).transpose(2, 0, 1)[np.newaxis]
        (logits,) = self._session.run(None, {"images": images})
        powers = np.exp(logits[0] - logits[0].max())
        return LABELS[int((powers / powers.sum()).argmax())]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=150)
    chosen = arguments.parse_args()
    photo = sorted((chosen.shared / "data" / "photos").iterdir())[0]
    frame = np.asarray(Image.open(photo).convert("RGB").resize((1920, 1080)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, script = bundle(chosen.shared, folder), Script(folder)
        with edge_resnet.Classifier(path, target="cpu") as classify:
            prepared = NAMED["imagenet"].prepare(frame)[np.newaxis]
            engine = classify.engine
            overheads = []

            def ours() -> None:
                start = time.perf_counter()
                timing = classify(frame).timing
                assert timing is not None
                overheads.append(1e3 * (time.perf_counter() - start) - timing.prepare_ms - timing.run_ms)

            runs = {SCRIPT: lambda: script(frame), OURS: ours, BARE: lambda: engine.run(prepared)}
            seconds = paired_seconds(runs, chosen.rounds)
    speed_up = float(np.median(seconds[SCRIPT] / seconds[OURS]))
    tails = {name: float(np.percentile(each, 99) / np.median(each)) for name, each in seconds.items()}
    rows = [
        (name, f"{1e3 * np.median(each):.1f} ms", f"{1e3 * np.percentile(each, 99):.1f} ms", f"{tails[name]:.2f}")
        for name, each in seconds.items()
    ]
    table = Table(
        "From a frame of 1920×1080 to its label, ResNet-50", ("way", "median", "99th percentile", "ratio"), rows
    )
    figures = {
        "speed_up": speed_up,
        "tail_of_tail": tails[OURS] / tails[BARE],
        "overhead_ms": float(np.median(overheads)),
    }
    report([table], chosen.json, **figures)
    print(
        f"\n{speed_up:.2f} times the script's throughput (aim 1.7); tail {figures['tail_of_tail']:.2f} times that of the "
        f"bare loop (aim 1.1); overhead {figures['overhead_ms']:.3f} ms a frame (aim 0.2)"
    )


if __name__ == "__main__":
    main()
