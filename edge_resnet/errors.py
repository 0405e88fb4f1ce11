"""The error tree. Every error a user can cause is one of these: one line, and an exit code.

    EdgeResnetError                what the user gave cannot be used           exit 2
    ├── ModelError                 an architecture, checkpoint or ONNX graph
    ├── ImageError                 an image, or a set of images
    ├── CameraError                a camera's address, or what it gives
    ├── RecipeError                edge-resnet.toml, a preprocessing file, a fleet
    ├── CalibrationError           ranges, or a calibration table
    ├── BundleError                a .edge file
    ├── EngineError                an engine, or what was fed to it
    ├── RegistryError              a model registry, or what it holds
    ├── OutputError                the place the result should go to
    ├── GateError                  accuracy, coverage or verification said no  exit 3
    │   └── TrustError             a bundle or engine that no trusted key signed
    └── UnavailableError           a GPU, device or package that is not here   exit 4
        └── CameraUnavailableError also a CameraError: a camera not there, or gone

A message says what is wrong, with which value, and what to do, on one line.
"""


class EdgeResnetError(Exception):
    """Base of all errors that a user can cause."""

    exit_code = 2


class ModelError(EdgeResnetError):
    """An architecture, checkpoint or ONNX graph that cannot be used."""


class ImageError(EdgeResnetError):
    """An image or a set of images that cannot be used."""


class CameraError(EdgeResnetError):
    """A camera's address, or what its source gives, that cannot be used."""


class RecipeError(EdgeResnetError):
    """A recipe or preprocessing file that cannot be used."""


class CalibrationError(EdgeResnetError):
    """Calibration ranges, or a table of them, that cannot be used."""


class BundleError(EdgeResnetError):
    """A bundle that cannot be used."""


class EngineError(EdgeResnetError):
    """An engine that cannot be compiled or loaded, or input that it does not take."""


class RegistryError(EdgeResnetError):
    """A model registry, or a document or part in it, that cannot be used."""


class OutputError(EdgeResnetError):
    """An output path that cannot be written."""


class GateError(EdgeResnetError):
    """A gate (accuracy, coverage, verification) said no."""

    exit_code = 3


class TrustError(GateError):
    """A bundle, or an engine beside one, that no trusted key has signed as it is."""


class UnavailableError(EdgeResnetError):
    """A GPU, device or optional package is needed and is not here."""

    exit_code = 4


class CameraUnavailableError(CameraError, UnavailableError):
    """A camera that is not there, or that was lost and did not come back."""
