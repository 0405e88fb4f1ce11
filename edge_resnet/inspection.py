"""What is inside a file that edge-resnet made, or an ONNX file of anybody's."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_resnet.bundle import BUNDLE_SUFFIX, SBOM_MEMBER, open_bundle
from edge_resnet.companion import engines_of, read_record
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import BundleError, EdgeResnetError
from edge_resnet.limits import parse_json
from edge_resnet.loading import find_engine, opened, replayed
from edge_resnet.trust import refuse_trust


def inspect_file(path: Path, trust: Path | None = None) -> dict[str, Any]:
    """Reads a file by its suffix: ``.edge``, ``.onnx``, ``.json`` (a calibration table), ``.engine`` (by its record).

    Args:
        path: the file.
        trust: of a bundle, as ``open_bundle`` takes it.

    Raises:
        TrustError: no trusted key has signed the bundle.
        EdgeResnetError: the file is missing, damaged, or of another kind.
    """
    known = (BUNDLE_SUFFIX, *_READERS)
    if path.suffix not in known:
        raise EdgeResnetError(f"{path} is of a kind that is not known here: give one of {', '.join(known)}")
    if not path.is_file():
        raise EdgeResnetError(f"no file at {path}")
    if path.suffix == BUNDLE_SUFFIX:
        found = _bundle(path, trust)
    else:
        refuse_trust(path, trust)
        found = _READERS[path.suffix](path)
    return {"file": str(path), "bytes": path.stat().st_size, **found}


def verify_bundle(path: Path, trust: Path | None = None) -> list[dict[str, Any]]:
    """Runs each of a bundle's engines that runs here over its golden samples.

    Args:
        path: the bundle.
        trust: as ``open_bundle`` takes it.

    Returns:
        For each target ``{target, passed, sqnr_db, why_not}``; ``passed`` is None where the engine does not run here. An
        engine beside the bundle counts, before one inside it, as when the bundle is loaded.
    """
    if path.suffix != ".edge":
        raise BundleError(f"{path} is no bundle: only bundles hold golden samples")
    bundle = open_bundle(path, trust)
    bundle.verify_members()
    found: list[dict[str, Any]] = []
    compiled = engines_of(path, bundle)
    for name in dict.fromkeys((*(entry.target for entry in bundle.manifest.engines), *compiled)):
        target = target_named(name).at(bundle.manifest.precision)
        why_not = engine_class(target.kind).why_not_run(target) if name in compiled else "deferred: not compiled yet"
        if why_not is not None:
            found.append({"target": name, "passed": None, "sqnr_db": None, "why_not": why_not})
            continue
        engine = find_engine(path, bundle, name)
        with opened(path, engine) as runs:
            result = replayed(bundle, engine, runs)
        found.append({"target": name, "passed": result.passed, "sqnr_db": result.sqnr_db, "why_not": None})
    return found


def _bundle(path: Path, trust: Path | None) -> dict[str, Any]:
    bundle = open_bundle(path, trust)
    manifest = bundle.manifest.to_json()
    calibration = bundle.manifest.calibration
    if calibration is not None and isinstance(calibration["images"], dict):
        images = {key: value for key, value in calibration["images"].items() if key != "sha256"}
        manifest["calibration"] = {**calibration, "images": images}
    members = {name: len(bundle.read(name)) for name in bundle.names}
    signed_by = [each.key for each in bundle.signatures]
    return {"kind": "bundle", "digest": bundle.digest, "signed_by": signed_by, **manifest, "members": members}


def read_sbom(path: Path, trust: Path | None = None) -> dict[str, Any]:
    """What a bundle was built with: its CycloneDX document.

    Raises:
        BundleError: the bundle has none, or it is damaged.
        TrustError: no trusted key has signed the bundle.
    """
    data = open_bundle(path, trust).read(SBOM_MEMBER)
    try:
        document: dict[str, Any] = parse_json(data)
    except ValueError as error:
        raise BundleError(f"bundle '{path}': {SBOM_MEMBER} cannot be read: {error}") from error
    return document


def _onnx(path: Path) -> dict[str, Any]:
    from edge_resnet.onnx_file import described, read_metadata, read_onnx

    model = read_onnx(path)
    found = read_metadata(model, str(path))
    return {
        "kind": "onnx",
        "opset": model.opset_import[0].version,
        "producer": model.producer_name or None,
        "inputs": [described(value) for value in model.graph.input],
        "outputs": [described(value) for value in model.graph.output],
        "architecture": found.architecture,
        "preprocessing": None if found.preprocessing is None else found.preprocessing.to_json(),
        "labels": None if found.labels is None else list(found.labels),
        "operators": dict(collections.Counter(node.op_type for node in model.graph.node).most_common()),
        "layers": [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")],
    }


def _table(path: Path) -> dict[str, Any]:
    from edge_resnet.quantize_files import open_table

    table = open_table(path)
    images = {key: value for key, value in table.images.items() if key != "sha256"}
    ranges = {name: f"amax {r.amax:.4g}, seen {r.minimum:.4g} to {r.maximum:.4g}" for name, r in table.ranges.items()}
    return {
        "kind": "calibration table",
        "method": table.method,
        "model": table.model,
        "images": images,
        "ranges": ranges,
    }


def _engine(path: Path) -> dict[str, Any]:
    return {"kind": "engine", "record": read_record(path)}


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".onnx": _onnx,
    ".json": _table,
    ".engine": _engine,
}
