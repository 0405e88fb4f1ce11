"""Cameras, streams, video files and image folders as one loop of frames.

    with open_camera("rtsp://192.168.1.20/live", latest=True) as camera:
        for frame in camera:  # a CameraFrame
            print(frame.index, frame.pixels.shape)

What is lost comes back: see docs/camera.md. Importing this package needs numpy alone.
"""

from edge_resnet.camera.camera import Camera, CameraStats, open_camera
from edge_resnet.camera.registry import SOURCES
from edge_resnet.camera.retry import Retry
from edge_resnet.camera.source import Shot, Source

__all__ = ["SOURCES", "Camera", "CameraStats", "Retry", "Shot", "Source", "open_camera"]
