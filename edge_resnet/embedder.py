"""Frames in, feature vectors out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import BundleError
from edge_resnet.runtime import Frame, Runtime


class Embedder(Runtime):
    """Turns camera frames into features with a bundle's engine, to compare, search or train on.

        with Embedder("backbone.edge") as embed:
            query, *gallery = embed([frame, *known])

    Args:
        path: a ``.edge`` bundle of a network without its classifier.
        target: which of its engines; by default the fastest kind that runs here.
        color: of the arrays that it is called with; see ``Runtime``.
        cuda: the Python binding of CUDA that an engine on a GPU shall use; see ``Runtime``.
        trust: a folder of public keys, of which one must have signed the bundle; see ``Runtime``.
        verify: when the engine must answer the golden samples before it is used; see ``Runtime``.
        fallback: what to do when it cannot be loaded or answers otherwise; see ``Runtime``.

    Raises:
        BundleError: the bundle is damaged or no bundle, or its network classifies.
        TrustError: no trusted key has signed it.
        UnavailableError: none of its engines runs here.
        EngineError: the engine was compiled by another version or for another GPU, or the library refuses it.
        GateError: the engine answers the golden samples otherwise here.
    """

    def _check_kind(self, labels: tuple[str, ...] | None) -> None:
        if labels is not None:
            raise BundleError(
                f"bundle '{self.path}' classifies: open it with Classifier, or build it with include_top = false"
            )

    def __call__(self, frame: Frame | list[Frame]) -> npt.NDArray[np.float32]:
        """Features of one frame, or of each of a list of frames, run as one batch.

        Args:
            frame: uint8 H×W×3 RGB or H×W grey of any size, a Pillow image, a path, or a list of these, which
                need not be of one size.

        Returns:
            float32, as the network gives them and not normalised: channels with a pooling, channels×h×w without; for a list
            one row a frame.

        Raises:
            ImageError: a frame has another dtype or shape, or a file is no image.
        """
        return self.answers(frame) if isinstance(frame, list) else self.answers([frame])[0]
