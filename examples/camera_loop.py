"""Classifies what a camera sees, for as long as there is one.

    pip install 'edge-resnet[camera]'
    python examples/camera_loop.py model.edge v4l2:///dev/video0
    python examples/camera_loop.py model.edge rtsp://192.168.1.20/live
    python examples/camera_loop.py model.edge video.mp4          # every frame of it; a folder of images too

A live camera gives its newest frame, so that the answer is about now, however slow the network is. One that is lost is
waited for and told of on stderr; Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

import edge_resnet
from edge_resnet.camera import open_camera


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("camera", help="an address, a video file or a folder of images")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # losses and reconnects
    try:
        with (
            edge_resnet.Classifier(given.bundle) as classify,
            open_camera(given.camera, color=classify.camera_color) as camera,
        ):
            for frame in camera:
                best = classify(frame)
                age_ms = 1e3 * (time.monotonic() - frame.captured)
                print(f"{frame.index:6d}  {best.label:20} {best.probability:6.1%}  {age_ms:5.0f} ms after capture")
            print(camera.stats)
    except edge_resnet.EdgeResnetError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
