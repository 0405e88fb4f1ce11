#!/usr/bin/env bash
# The runtime's wheel on Debian's arm64 Python, emulated: do the demo's images get the answers that they get here?
#
#     tests/runtime/arm64.sh .runtime PYTHON   after `make runtime`; `make test-arm64` does both
#
# PYTHON runs the runtime on this machine. Needs Debian's apt, which is told of folders of ours and changes nothing on
# the machine, and qemu-aarch64 (qemu-user).
set -euo pipefail
python=$2
command -v qemu-aarch64 >/dev/null || { echo "no qemu-aarch64 here: apt-get install qemu-user" >&2; exit 4; }
work=$(realpath "$1")/arm64
root=$work/root
mkdir -p "$work"/{lists,cache/archives}/partial
: >"$work/status" # of dpkg: nothing is installed
apt=(apt-get -qq --yes --no-install-recommends -o APT::Architecture=arm64 -o APT::Architectures=arm64
    -o APT::Sandbox::User="$(id -un)" -o Dir::Cache="$work/cache" -o Dir::State="$work" -o Dir::State::Lists="$work/lists"
    -o Dir::State::Status="$work/status")
"${apt[@]}" update
"${apt[@]}" --download-only install python3 libstdc++6
rm -rf "$root" "$work/site"
for package in "$work"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$root"; done

# ONNX Runtime reads the processor off here, and dies of an x86's. Cortex-A76: of those that qemu 7 knows the nearest to
# the A78AE of Jetson Orin, with the INT8 dot products that its kernels use.
mkdir "$root/proc"
for core in 0 1; do
    printf '%s\n' "processor: $core" 'Features: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm asimddp' \
        'CPU implementer: 0x41' 'CPU architecture: 8' 'CPU variant: 0x4' 'CPU part: 0xd0b' 'CPU revision: 1' ''
done >"$root/proc/cpuinfo"

arm64=(env PYTHONPATH="$work/site" qemu-aarch64 -cpu cortex-a76 -L "$root" "$root/usr/bin/python3")
version=$("${arm64[@]}" -c 'import sys; print("{}.{}".format(*sys.version_info))')
"$python" -m pip install --quiet --target "$work/site" --constraint constraints.txt --only-binary=:all: \
    --python-version "$version" --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_28_aarch64 "$(echo "$1"/wheel/edge_resnet-*.whl)[camera,cuda]" hypothesis pytest
"${arm64[@]}" -c 'import platform, numpy, onnxruntime as ort; print(f"{platform.machine()}, Python {platform.python_version()},"
    f" numpy {numpy.__version__}, ONNX Runtime {ort.__version__}")'

command='from edge_resnet.cli import main; main()'
"${arm64[@]}" -c "$command" info "$1/demo.edge" --verify --json >"$work/verified.json"
images=(edge_resnet/demo/test/*/*7.png)
"$python" -c "$command" classify "$1/demo.edge" "${images[@]}" --json >"$work/here.json"
"${arm64[@]}" -c "$command" classify "$1/demo.edge" "${images[@]}" --json >"$work/there.json"
"$python" - "$work" <<'END'
import json, pathlib, sys
verified, here, there = (json.loads((pathlib.Path(sys.argv[1]) / f"{name}.json").read_text()) for name in ("verified", "here", "there"))
golden = next(each for each in verified["verify"] if each["target"] == "cpu")
assert golden["passed"], golden
assert len(here) == len(there) > 50
first = [(x["predictions"][0], y["predictions"][0]) for x, y in zip(here, there, strict=True)]
same = sum(x["label"] == y["label"] for x, y in first)
furthest = max(abs(x["probability"] - y["probability"]) for x, y in first)
print(f"golden samples: {golden['sqnr_db'] or float('inf'):.1f} dB; {same} of {len(first)} images get the same label, their probability within {furthest:.4f}")
sys.exit(same < len(first))
END

# Without the tests that start a process of Python's own: qemu runs only what it was started for.
"${arm64[@]}" -m pytest -q -p no:cacheprovider --bundle "$1/demo.edge" \
    --deselect tests/edge_resnet/test_preprocessing.py::test_importing_it_brings_neither_torch_nor_onnx \
    tests/edge_resnet/test_{classifier,images,preprocessing,resampling,stream}.py
