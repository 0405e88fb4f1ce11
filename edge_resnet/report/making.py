"""Bundles, and images where they are at hand, → the file of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge_resnet.bundle import FP32_MEMBER, Bundle, open_bundle, own_bundle
from edge_resnet.calibration_images import labelled
from edge_resnet.check import BATCH, float_run
from edge_resnet.checking import compare_with_calibration, rival_of
from edge_resnet.errors import EngineError, GateError, TrustError, UnavailableError
from edge_resnet.images import ImageSet
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.output import write_atomically
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.progress import Progress
from edge_resnet.report.answers import Answers, Disagreement, Recorded, disagreement
from edge_resnet.report.evidence import gather
from edge_resnet.report.page import render
from edge_resnet.runtime import Runtime


class _OwnRuntime(Runtime):
    """Of a bundle that this process has just made: see ``own_bundle``."""

    def __init__(self, path: Path, digest: str, target: str) -> None:
        self._own = digest
        super().__init__(path, target=target)

    def _open(self) -> Bundle:
        return own_bundle(self.path, self._own)


def write_report(
    bundles: Sequence[Path],
    output: Path,
    images: ImageSet | None,
    progress: Progress,
    trust: Path | None = None,
) -> int:
    """Writes the page of one bundle, or of two side by side.

    Args:
        bundles: one or two.
        output: the HTML file.
        images: evaluation images, to show which answers changed; None shows none.
        progress: told of the images done.
        trust: public keys, of which one must have signed each bundle; None asks for none.

    Returns:
        Bytes written.

    Raises:
        BundleError: a bundle is damaged, or no bundle.
        TrustError: no trusted key has signed it.
        ImageError: an image cannot be read, or was used for calibration.
    """
    opened = [(path, open_bundle(path, trust)) for path in bundles]
    subjects = []
    for path, bundle in opened:
        changed = {} if images is None else _disagreements(path, bundle, images, progress)
        subjects.append(gather(path, bundle, changed, _engines_of(path, trust)))
    return _written(output, render(subjects))


def _engines_of(path: Path, trust: Path | None) -> Callable[[str], Runtime]:
    return lambda target: Runtime(path, target=target, trust=trust)


def report_of_build(
    bundle: Path,
    digest: str,
    output: Path,
    images: ImageSet | None,
    answers: Mapping[str, tuple[Answers, Answers]],
) -> int:
    """Writes the page of a bundle that was just built, from answers that its check has given.

    Args:
        bundle: the bundle; nobody has signed it yet, so nobody is asked to be trusted with it.
        digest: the bundle's, as it was written.
        output: the HTML file.
        images: the evaluation images, labelled as the network's classes are; None without.
        answers: FP32's and the engine's, to these images, of each target that was checked.

    Returns:
        Bytes written.

    Raises:
        BundleError: another bundle lies there.
    """
    opened = own_bundle(bundle, digest)
    labels = opened.manifest.labels

    def start(target: str) -> Runtime:
        return _OwnRuntime(bundle, digest, target)

    if images is None or labels is None:
        return _written(output, render([gather(bundle, opened, {}, start)]))
    changed = {target: disagreement(*each, images, labels) for target, each in answers.items()}
    return _written(output, render([gather(bundle, opened, changed, start)]))


def _disagreements(path: Path, bundle: Bundle, images: ImageSet, progress: Progress) -> dict[str, Disagreement]:
    labels = bundle.manifest.labels
    if labels is None:
        progress.note(f"{path} gives features: it has no answers that could be shown changed")
        return {}
    known = labelled(images, labels, progress)
    compare_with_calibration(bundle, known, progress)
    fp32 = Recorded(float_run(parse_onnx(bundle.read(FP32_MEMBER), FP32_MEMBER)))
    engines = _engines(path, bundle, progress)
    with progress.stage(path.name, len(known)):
        for frames in known.batches(Preprocessing.from_json(bundle.manifest.preprocessing), BATCH):
            for run in (fp32, *engines.values()):
                run(frames)
            progress.advance(len(frames))
    return {target: disagreement(fp32.answers, run.answers, known, labels) for target, run in engines.items()}


def _engines(path: Path, bundle: Bundle, progress: Progress) -> dict[str, Recorded]:
    """What answers for each target; one that cannot is a note, as its speed is."""
    found = {}
    for entry in bundle.manifest.engines:
        try:
            found[entry.target] = Recorded(rival_of(path, bundle, entry.target).network.run)
        except TrustError:
            raise
        except (EngineError, GateError, UnavailableError) as error:
            progress.note(f"{entry.target}: no answers of it are shown: {error}")
    return found


def _written(output: Path, page: str) -> int:
    data = page.encode()
    write_atomically(output, data)
    return len(data)
