"""A ROS 2 node that classifies a camera's images with a bundle. ROS 2 Humble or newer.

    python classifier_node.py --ros-args -p bundle:=model.edge -p topic:=/camera/image_raw

Its parameters, topics and life cycle are in README.md, beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import rclpy
from answers import as_classification, as_json
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from health import Health
from image_messages import frame_of, picture_of
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from edge_resnet import Classifier, EdgeResnetError, Prediction

try:
    from vision_msgs.msg import Classification, ObjectHypothesis
except ImportError:
    Classification = None  # answers are JSON then

NEWEST_FRAME = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""A sensor's quality of service. One place in the queue: while a frame is being classified, newer ones replace each
other there, so the next one is always the newest, and no answer is older than it must be."""

PARAMETERS = {
    "bundle": ("", "the .edge bundle"),
    "target": ("", "which of its engines; empty takes the fastest kind that runs here"),
    "topic": ("image", "where images come from"),
    "compressed": (False, "whether they are sensor_msgs/CompressedImage"),
    "top_k": (5, "how many classes an answer names"),
    "stale_after": (1.0, "seconds without a frame that diagnostics warn of"),
    "autostart": (True, "whether the node configures and activates itself, without a life cycle manager"),
}


class ClassifierNode(LifecycleNode):
    """Configured, it has the bundle open; active, it classifies. Parameters are read when it is configured."""

    def __init__(self) -> None:
        super().__init__("classifier")
        for name, (value, description) in PARAMETERS.items():
            self.declare_parameter(name, value, ParameterDescriptor(description=description))

    def value(self, name: str) -> str | int | float | bool:
        """A parameter's."""
        return self.get_parameter(name).value

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens the bundle; without one that runs here, the node stays unconfigured and says why."""
        try:
            self._classify = Classifier(self.value("bundle"), target=self.value("target") or None)
        except (EdgeResnetError, OSError) as error:
            self.get_logger().error(f"cannot open bundle '{self.value('bundle')}': {error}")
            return TransitionCallbackReturn.FAILURE
        kind = String if Classification is None else Classification
        self._answers = self.create_lifecycle_publisher(kind, "~/classification", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._health = Health(self.value("stale_after"))
        self._top_k = self.value("top_k")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begins to listen."""
        kind, callback = (CompressedImage, self._on_compressed) if self.value("compressed") else (Image, self._on_image)
        self._images = self.create_subscription(kind, self.value("topic"), callback, NEWEST_FRAME)
        self._reports = self.create_timer(1.0, self._report)
        self.get_logger().info(f"classifies {self._images.topic_name} on {self._classify.target}")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops listening; the bundle stays open."""
        self.destroy_subscription(self._images)
        self.destroy_timer(self._reports)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the engine."""
        self._classify.close()
        self.destroy_lifecycle_publisher(self._answers)
        self.destroy_publisher(self._diagnostics)
        return super().on_cleanup(state)

    def _on_image(self, message: Image) -> None:
        self._answer(message.header, lambda: self._classify(frame_of(message, self._classify.frames)))

    def _on_compressed(self, message: CompressedImage) -> None:
        self._answer(message.header, lambda: self._classify(picture_of(message)))

    def _answer(self, header: object, classified: Callable[[], Prediction]) -> None:
        came = time.monotonic()
        age = (self.get_clock().now() - Time.from_msg(header.stamp)).nanoseconds / 1e9
        try:
            predictions = classified().top(self._top_k)
        except EdgeResnetError as error:
            self._health.refusal(str(error), came)
            self.get_logger().warning(f"a frame is refused: {error}", throttle_duration_sec=5.0)
            return
        if Classification is None:
            self._answers.publish(String(data=as_json(header, predictions)))
        else:
            self._answers.publish(as_classification(Classification, ObjectHypothesis, header, predictions))
        self._health.answer(age, came, time.monotonic())

    def _report(self) -> None:
        level, summary, values = self._health.report(time.monotonic())
        status = DiagnosticStatus(name=f"{self.get_name()}: frames", hardware_id=self._classify.target, message=summary)
        status.level = bytes([level])
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        report = DiagnosticArray(status=[status])
        report.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(report)


def main() -> int:
    rclpy.init()
    node = ClassifierNode()
    try:
        if node.value("autostart"):
            for step in (node.trigger_configure, node.trigger_activate):
                if step() is not TransitionCallbackReturn.SUCCESS:
                    return 1
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # else it was told to stop while it answered, and could publish no more
            raise
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
