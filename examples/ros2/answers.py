"""Predictions as ROS messages: ``vision_msgs/Classification``, or the same fields as JSON in a ``std_msgs/String``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edge_resnet import Prediction


def as_classification(
    classification: type, hypothesis: type, header: object, predictions: Sequence[Prediction]
) -> object:
    """Fills a ``vision_msgs/Classification`` (ROS 2 Humble or newer), most probable class first.

    Args:
        classification: the message's class; ``header`` and ``results`` are set.
        hypothesis: the class of ``vision_msgs/ObjectHypothesis``; ``class_id`` and ``score`` are set.
        header: the image's, so that answer and image can be put together again.
        predictions: of that image.
    """
    message = classification()
    message.header = header
    for prediction in predictions:
        result = hypothesis()
        result.class_id, result.score = prediction.label, prediction.probability
        message.results.append(result)
    return message


def as_json(header: object, predictions: Sequence[Prediction]) -> str:
    """The same document where ``vision_msgs`` is missing.

    {"header": {"stamp": {"sec": 12, "nanosec": 345}, "frame_id": "camera"},
     "results": [{"class_id": "sneaker", "score": 0.98}, …]}
    """
    stamp = {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec}
    results = [{"class_id": each.label, "score": each.probability} for each in predictions]
    return json.dumps({"header": {"stamp": stamp, "frame_id": header.frame_id}, "results": results})
