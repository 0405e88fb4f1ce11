"""Publishes image files as a camera does: for trying the node without a camera.

    python publish_images.py photos/*.jpg --encoding bgr8 --rate 30

Each message's ``frame_id`` is the file's name, its stamp the time of publishing.
"""

from __future__ import annotations

import argparse
import time
from array import array
from pathlib import Path

import numpy as np
import rclpy
from PIL import Image as Picture
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage, Image

BT601 = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
"""Red, green and blue of 0 to 255 → luma and both chromas, less 16, 128 and 128 (ITU-R BT.601)."""


def buffer_of(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """An RGB picture, uint8 H×W×3, in another encoding: uint8, a row a row of the message, without padding."""
    height, width = rgb.shape[:2]
    orders = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 3], "bgra8": [2, 1, 0, 3]}
    if encoding in orders:
        opaque = np.concatenate([rgb, np.full((height, width, 1), 255, np.uint8)], axis=2)
        return opaque[:, :, orders[encoding]].reshape(height, -1)
    if encoding == "mono8":
        return np.asarray(Picture.fromarray(rgb).convert("L"))
    yuv = np.rint(rgb @ BT601.T + (16, 128, 128)).astype(np.uint8)
    luma, chroma = yuv[:, :, 0], yuv[:, ::2, 1:].reshape(height, width)  # blue, red, blue, red, …
    if encoding == "nv12":
        return np.concatenate([luma, chroma[::2]])
    first, second = (luma, chroma) if encoding in ("yuyv", "yuv422_yuy2") else (chroma, luma)
    return np.stack([first, second], axis=2).reshape(height, -1)


def image_message(rgb: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """A ``sensor_msgs/Image`` of an RGB picture, whose rows end in ``padding`` bytes of noise."""
    rows = buffer_of(rgb, encoding)
    noise = np.random.default_rng(0).integers(0, 256, (len(rows), padding), np.uint8)
    data = np.concatenate([rows, noise], axis=1)
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=data.shape[1])
    message.data = array("B", data.tobytes())  # rclpy looks at each byte of anything else
    return message


def message_of(path: Path, args: argparse.Namespace) -> Image | CompressedImage:
    if args.compressed:
        return CompressedImage(format=path.suffix[1:], data=array("B", path.read_bytes()))
    return image_message(np.asarray(Picture.open(path).convert("RGB")), args.encoding, args.padding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--topic", default="image")
    parser.add_argument("--encoding", default="rgb8")
    parser.add_argument("--padding", type=int, default=0, help="bytes at the end of each row that mean nothing")
    parser.add_argument("--compressed", action="store_true", help="the files as they are")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second")
    args = parser.parse_args(remove_ros_args()[1:])

    rclpy.init()
    node = Node("image_publisher")
    publisher = node.create_publisher(
        CompressedImage if args.compressed else Image, args.topic, qos_profile_sensor_data
    )
    messages = [message_of(path, args) for path in args.files]
    for path, message in zip(args.files, messages, strict=True):
        message.header.frame_id = path.name
    index = 0
    try:
        while rclpy.ok():
            message = messages[index % len(messages)]
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)
            index += 1
            time.sleep(1 / args.rate)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
