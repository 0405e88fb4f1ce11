"""What a 1080p frame costs to get: decoding and bringing it to a colour, by source, in processor time and on the clock.

    python benchmarks/camera_sources.py      # needs ffmpeg and GStreamer 1.0; half a minute

The clip is ffmpeg's test picture in H.264, 4:2:0, without B-frames, as network cameras send it. The pipeline is
GStreamer's test picture through a pipe, as a CSI camera's frames come. Rounds take turns; medians.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from edge_resnet.camera import Camera, open_camera
from edge_resnet.camera.csi import GST_FORMATS, PipelineSource
from edge_resnet.frames import FrameColor, FrameFormat

FRAMES, ROUNDS = 120, 5
COLORS = (FrameColor.RGB, FrameColor.BGR, FrameColor.RGBA, FrameColor.GRAY, FrameColor.NV12)
CLIP = "testsrc2=size=1920x1080:rate=30,format=yuv420p"


def make_clip(path: Path) -> None:
    encode = ["-frames:v", str(FRAMES), "-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-b:v", "4M"]
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", CLIP, *encode, str(path)], check=True)


def pipeline(color: FrameColor) -> Camera:
    caps = f"video/x-raw,format={GST_FORMATS[color]},width=1920,height=1080"
    # The picture is painted once and then repeated, so that what is measured is the pipe.
    text = f"videotestsrc num-buffers=1 ! {caps},framerate=30/1 ! imagefreeze ! {caps}"
    return Camera(PipelineSource("pipeline", text, FrameFormat(1080, 1920, color)), latest=False)


def cost_ms(camera: Camera) -> tuple[float, float]:
    """Of a frame: on the clock, and in this process's processor time on all cores."""
    with camera:
        next(camera)
        clock, cpu = time.perf_counter(), time.process_time()
        count = sum(1 for _ in itertools.islice(camera, FRAMES - 20))
        return 1e3 * (time.perf_counter() - clock) / count, 1e3 * (time.process_time() - cpu) / count


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip)
        rows: dict[tuple[str, FrameColor], list[tuple[float, float]]] = {}
        for _, color in itertools.product(range(ROUNDS), COLORS):
            rows.setdefault(("H.264 file", color), []).append(cost_ms(open_camera(clip, color=color)))
            rows.setdefault(("pipeline", color), []).append(cost_ms(pipeline(color)))
    for (source, color), costs in sorted(rows.items(), key=lambda row: row[0][0]):
        clock, cpu = (statistics.median(values) for values in zip(*costs, strict=True))
        print(f"{source:11} {color.value:6} {clock:6.2f} ms a frame, {cpu:6.2f} ms of processor time")


if __name__ == "__main__":
    main()
