"""The ROS 2 node as a process of its own, asked by this one over real middleware. ``make ros2`` installs what it needs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture

pytest.importorskip("rclpy", reason="ROS 2 is not installed: `make ros2` does that on x86-64")
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)  # so that runs on one machine do not hear each other

import rclpy
from classifier_node import NEWEST_FRAME
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from publish_images import image_message
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from edge_resnet import Classifier

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "ros2"
SLOW = """
import sys, time, classifier_node
class Slow(classifier_node.Classifier):
    def __call__(self, frame):
        time.sleep(0.1)
        return super().__call__(frame)
classifier_node.Classifier = Slow
sys.exit(classifier_node.main())
"""


def command(*program: str, **parameters: object) -> list[str]:
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    return [sys.executable, *program, "--ros-args", *given]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a node in another process; they are stopped in the end, and must stop well."""
    started = []
    log = str(tmp_path_factory.mktemp("log"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXAMPLE), *sys.path]), "ROS_LOG_DIR": log}

    def started_with(*program: str, **parameters: object) -> None:
        started.append(subprocess.Popen(command(*program, **parameters), env=environment, stderr=subprocess.PIPE))

    yield started_with
    for process in started:
        process.terminate()
    for process in started:
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said.decode()


@pytest.fixture(scope="module")
def asker() -> Iterator[Node]:
    rclpy.init()
    node = rclpy.create_node("asker")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def until(node: Node, true: Callable[[], bool], seconds: float = 20.0) -> bool:
    give_up = time.monotonic() + seconds
    while not true() and time.monotonic() < give_up:
        rclpy.spin_once(node, timeout_sec=0.02)
    return true()


class Ear:
    """Publishes images and hears the answers of one node."""

    def __init__(self, node: Node, name: str, kind: type) -> None:
        self.node = node
        self.answers: list[tuple[float, dict[str, object]]] = []
        self.publisher = node.create_publisher(kind, f"{name}_images", NEWEST_FRAME)
        node.create_subscription(String, f"/{name}/classification", self._came, 100)

    def _came(self, message: String) -> None:
        self.answers.append((time.time(), json.loads(message.data)))

    def meet(self) -> None:
        assert until(self.node, lambda: self.publisher.get_subscription_count() > 0)

    def ask(self, message: Image | CompressedImage, name: str) -> dict[str, float] | None:
        """What is answered to a message, a score a class; best effort loses messages, so it is asked again."""
        message.header.frame_id = name
        for _ in range(5):
            message.header.stamp = self.node.get_clock().now().to_msg()
            self.publisher.publish(message)
            if until(self.node, lambda: any(a["header"]["frame_id"] == name for _, a in self.answers), 2.0):
                found = next(answer for _, answer in self.answers if answer["header"]["frame_id"] == name)
                return {each["class_id"]: each["score"] for each in found["results"]}
        return None


@pytest.fixture(scope="module")
def picture(sneaker: Path) -> np.ndarray:
    """A sneaker in colours that matter to luma: each pixel of one colour is four, so that halved chroma loses nothing."""
    grey = np.asarray(Picture.open(sneaker), np.float64)
    return np.stack([grey, grey * 0.4, 255 - grey], axis=2).round().astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="module")
def file(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "sneaker.png"
    Picture.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="module")
def from_file(quick_bundle: Path, file: Path) -> dict[str, float]:
    with Classifier(quick_bundle) as classify:
        return {each.label: each.probability for each in classify(file).top(10)}


@pytest.fixture(scope="module")
def images(start: Callable[..., None], asker: Node, quick_bundle: Path) -> Ear:
    start(
        str(EXAMPLE / "classifier_node.py"), "--ros-args", "-r", "__node:=plain", "--",
        bundle=quick_bundle, topic="plain_images", top_k=10,
    )  # fmt: skip
    ear = Ear(asker, "plain", Image)
    ear.meet()
    return ear


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "off"),
    [("rgb8", 0), ("bgr8", 0), ("rgba8", 0), ("bgra8", 0), ("yuv422", 0.06), ("yuv422_yuy2", 0.06), ("nv12", 0.06)],
)
def test_an_image_is_answered_as_its_file(
    images: Ear, picture: np.ndarray, from_file: dict[str, float], encoding: str, padding: int, off: float
) -> None:
    """Of those without chroma not one number differs; the others hold it in 8 bits less."""
    found = images.ask(image_message(picture, encoding, padding), f"{encoding}+{padding}")
    assert found == pytest.approx(from_file, abs=off)


def test_grey_too(images: Ear, quick_bundle: Path, sneaker: Path) -> None:
    with Classifier(quick_bundle) as classify:
        wanted = {each.label: each.probability for each in classify(sneaker).top(10)}
    rgb = np.asarray(Picture.open(sneaker).convert("RGB"))
    assert images.ask(image_message(rgb, "mono8", padding=3), "mono8") == wanted


def test_a_manager_leads_it_through_its_life(
    start: Callable[..., None], asker: Node, quick_bundle: Path, file: Path, from_file: dict[str, float]
) -> None:
    """And while it is active, it decodes compressed images, and tells /diagnostics of those that it cannot."""
    start(
        str(EXAMPLE / "classifier_node.py"), "--ros-args", "-r", "__node:=managed", "--", bundle=quick_bundle,
        topic="managed_images", compressed="true", top_k=10, autostart="false",
    )  # fmt: skip
    ear = Ear(asker, "managed", CompressedImage)
    told: list[SimpleNamespace] = []
    asker.create_subscription(DiagnosticArray, "/diagnostics", lambda message: told.extend(message.status), 10)
    change = asker.create_client(ChangeState, "/managed/change_state")
    state = asker.create_client(GetState, "/managed/get_state")

    def called(client: object, request: object) -> object:
        assert until(asker, client.service_is_ready)
        future = client.call_async(request)
        assert until(asker, future.done)
        return future.result()

    def to(transition: int) -> int:
        assert called(change, ChangeState.Request(transition=Transition(id=transition))).success
        return called(state, GetState.Request()).current_state.id

    def compressed(data: bytes) -> CompressedImage:
        message = CompressedImage(format="png")
        message.data = data
        return message

    assert to(Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert ear.publisher.get_subscription_count() == 0
    assert to(Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
    ear.meet()
    assert ear.ask(compressed(file.read_bytes()), "png") == from_file
    jpeg = io.BytesIO()
    Picture.open(file).save(jpeg, "JPEG", quality=95)
    assert ear.ask(compressed(jpeg.getvalue()), "jpeg") == pytest.approx(from_file, abs=0.1)

    ear.publisher.publish(compressed(b"no picture"))

    def of_it() -> list[SimpleNamespace]:
        return [each for each in told if each.name == "managed: frames" and each.level == b"\2"]

    assert until(asker, lambda: bool(of_it()))
    assert of_it()[0].message.startswith("a message of format 'png' is no image")

    assert to(Transition.TRANSITION_DEACTIVATE) == State.PRIMARY_STATE_INACTIVE
    assert until(asker, lambda: ear.publisher.get_subscription_count() == 0)
    assert to(Transition.TRANSITION_CLEANUP) == State.PRIMARY_STATE_UNCONFIGURED


def test_under_load_the_newest_frame_is_what_is_answered(
    start: Callable[..., None], asker: Node, quick_bundle: Path, picture: np.ndarray
) -> None:
    """100 frames a second, 0.1 s each: most are left out, and none waits for more than the one before it."""
    start(
        "-c", SLOW, "--ros-args", "-r", "__node:=slow", "--", bundle=quick_bundle, topic="slow_images", top_k=1
    )  # fmt: skip
    ear = Ear(asker, "slow", Image)
    ear.meet()
    message = image_message(picture, "rgb8")
    for index in range(150):
        message.header.frame_id, message.header.stamp = str(index), asker.get_clock().now().to_msg()
        ear.publisher.publish(message)
        until(asker, lambda: False, 0.01)
    until(asker, lambda: False, 0.5)
    order = [int(answer["header"]["frame_id"]) for _, answer in ear.answers]
    assert order == sorted(set(order))
    assert 5 <= len(order) <= 40
    stamps = [answer["header"]["stamp"] for _, answer in ear.answers]
    ages = [came - stamp["sec"] - stamp["nanosec"] / 1e9 for (came, _), stamp in zip(ear.answers, stamps, strict=True)]
    assert np.median(ages) < 0.3, ages
    assert order[-1] >= 130  # and the last is among those sent last


def test_a_bundle_that_is_not_there_ends_it() -> None:
    program = command(str(EXAMPLE / "classifier_node.py"), bundle="none.edge")
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "cannot open bundle 'none.edge'" in ended.stderr
