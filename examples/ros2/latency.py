"""How long an image takes from a publisher to the callback of a subscriber in another process, on this machine.

    export FASTDDS_DEFAULT_PROFILES_FILE=$PWD/fastdds.xml   # else most large images are lost, see there
    python latency.py

The image's stamp is taken right before ``publish``, so both copies of the pixels and the middleware are in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from classifier_node import NEWEST_FRAME
from PIL import Image as Picture
from rclpy.time import Time
from sensor_msgs.msg import Image

SIZES = {"640×480": (480, 640), "1920×1080": (1080, 1920)}


def measure(node: rclpy.node.Node, size: tuple[int, int], frames: int, rate: float) -> tuple[list[float], int]:
    """Seconds of each frame that came, and how many did not, between the first and the last that did."""
    seconds: list[float] = []
    numbers: list[int] = []

    def came(message: Image, information: dict[str, int]) -> None:
        numbers.append(information["publication_sequence_number"])
        seconds.append((node.get_clock().now() - Time.from_msg(message.header.stamp)).nanoseconds / 1e9)

    topic = f"image_{size[0]}"
    subscription = node.create_subscription(Image, topic, came, NEWEST_FRAME)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.png"
        Picture.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(path)
        script = Path(__file__).with_name("publish_images.py")
        publisher = subprocess.Popen([sys.executable, script, path, "--topic", topic, "--rate", str(rate)])
        try:
            give_up = time.monotonic() + 10 + 2 * frames / rate
            while len(seconds) < frames and time.monotonic() < give_up:
                rclpy.spin_once(node, timeout_sec=0.1)
        finally:
            publisher.terminate()
            publisher.wait()
    node.destroy_subscription(subscription)
    return seconds, numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="of each size")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second")
    args = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("latency")
    print("rgb8           came     lost   p50 ms   p90 ms   p99 ms   max ms")
    for name, size in SIZES.items():
        seconds, lost = measure(node, size, args.frames, args.rate)
        if not seconds:
            print(f"{name}: no frame came within the time", file=sys.stderr)
            return 1
        figures = [f"{1e3 * value:8.2f}" for value in (*np.percentile(seconds, (50, 90, 99)), max(seconds))]
        print(f"{name:12} {len(seconds):6d} {lost:8d} {' '.join(figures)}")
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
