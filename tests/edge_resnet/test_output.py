"""Writing files: whole, or not at all, whatever happens in between."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from edge_resnet.errors import ModelError, OutputError
from edge_resnet.output import check_writable, write_atomically, write_folder

NOBODY = 65534


def run_python(script: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*before, sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def without_privileges() -> Iterator[Path]:
    """An empty folder that the body may look into but not write; for root, permissions count only as another user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


@pytest.mark.parametrize("data", [b"", b"all at once", [], [b"in ", b"", b"pieces"]])
def test_what_is_read_is_what_was_written(tmp_path: Path, data: bytes | list[bytes]) -> None:
    write_atomically(tmp_path / "out", data)
    assert (tmp_path / "out").read_bytes() == (data if isinstance(data, bytes) else b"".join(data))
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_those_of_a_plain_open(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "plain").open("wb").close()
        write_atomically(tmp_path / "out", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")
    write_atomically(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"data"


def test_an_input_is_never_the_output(tmp_path: Path) -> None:
    source, link = tmp_path / "model.onnx", tmp_path / "link.onnx"
    source.write_bytes(b"input")
    link.symlink_to(source)
    for place in (source, link, tmp_path / "." / "model.onnx"):
        with pytest.raises(OutputError, match="it is an input of this command: give another name"):
            check_writable(place, None, source)
    assert source.read_bytes() == b"input" and len(list(tmp_path.iterdir())) == 2
    check_writable(tmp_path / "other.onnx", source)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ModelError, OSError])
def test_a_failure_half_way_keeps_the_old_file_and_is_passed_on(tmp_path: Path, failure: type[BaseException]) -> None:
    (tmp_path / "out").write_bytes(b"old")

    def pieces() -> Iterator[bytes]:
        yield b"new, but not all of it"
        assert len(os.listdir(tmp_path)) == 2, "the temporary file belongs in the same folder"
        raise failure("half way")

    with pytest.raises(failure, match="half way") as caught:
        write_atomically(tmp_path / "out", pieces())
    assert not isinstance(caught.value, OutputError)
    assert (tmp_path / "out").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old")
    script = """
import os, signal, sys
from pathlib import Path
from edge_resnet.output import write_atomically
def pieces():
    yield b"x" * 1_000_000
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), pieces())
"""
    assert run_python(script, str(out)).returncode == -signal.SIGKILL
    assert out.read_bytes() == b"old"
    leftovers = [path for path in tmp_path.iterdir() if path != out]
    assert [path.suffix for path in leftovers] == [".partial"], "the process was to die in the middle of writing"


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from edge_resnet.errors import OutputError
from edge_resnet.output import check_writable, write_atomically
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
os.chdir(folder)
write_atomically(Path("out"), b"old")
for attempt in (lambda: write_atomically(Path("out"), [b"x" * 10_000] * 10),
                lambda: write_atomically(Path("out"), b"x" * 100_000)):
    try:
        attempt()
    except OutputError as error:
        print(error)
    print(Path("out").read_bytes(), os.listdir())
subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
for attempt in (lambda: check_writable(Path("out")), lambda: write_atomically(Path("out"), b"new")):
    try:
        attempt()
    except OutputError as error:
        print(error)
print(Path("out").read_bytes())
"""


def can_mount() -> bool:
    try:
        probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="this host lets nobody mount a file system in a namespace")
def test_a_full_and_a_read_only_file_system(tmp_path: Path) -> None:
    result = run_python(FULL_DISK, str(tmp_path), before=("unshare", "--map-root-user", "--mount"))
    full = "cannot write 'out': no space left on the device: free some, or choose another place"
    read_only = "cannot write 'out': the file system is read-only: choose another place"
    old = "b'old' ['out']"
    assert result.stdout.splitlines() == [full, old, full, old, read_only, read_only, "b'old'"], result.stderr


def test_a_file_size_limit(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    script = """
import resource, sys
from pathlib import Path
from edge_resnet.errors import OutputError
from edge_resnet.output import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
try:
    write_atomically(Path(sys.argv[1]), [b"x" * 3_000] * 2)
except OutputError as error:
    print(error)
"""
    result = run_python(script, str(tmp_path / "out"))
    assert "the file would be larger than is allowed there: raise 'ulimit -f'" in result.stdout, result.stderr
    assert (tmp_path / "out").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


def write(path: Path) -> None:
    write_atomically(path, b"data")


@pytest.fixture(params=[write, check_writable], ids=["write", "check"])
def attempt(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Both functions refuse the same places, in the same words."""
    function: Callable[[Path], None] = request.param
    return function


def test_no_permission(attempt: Callable[[Path], None]) -> None:
    with without_privileges() as folder, pytest.raises(OutputError) as caught:
        attempt(folder / "out")
    assert str(caught.value) == (
        f"cannot write '{folder}/out': no permission there: choose another place, "
        f"or change the permissions of '{folder}'"
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EACCES


def test_a_folder_that_takes_no_files(attempt: Callable[[Path], None]) -> None:
    with pytest.raises(OutputError) as caught:
        attempt(Path("/proc/out.edge"))
    assert str(caught.value) == "cannot write '/proc/out.edge': no file can be made there: choose another place"


def test_a_missing_folder_is_not_created(tmp_path: Path, attempt: Callable[[Path], None]) -> None:
    with pytest.raises(OutputError) as caught:
        attempt(tmp_path / "missing" / "out")
    reason = f"the folder '{tmp_path}/missing' does not exist: create it first"
    assert str(caught.value) == f"cannot write '{tmp_path}/missing/out': {reason}"
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path, attempt: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OutputError, match="/file' is not a folder: choose another place"):
        attempt(tmp_path / "file" / "out")


def test_a_folder(tmp_path: Path, attempt: Callable[[Path], None]) -> None:
    with pytest.raises(OutputError, match="it is a folder: give the name of a file"):
        attempt(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_pipe_or_device_is_not_replaced(tmp_path: Path, attempt: Callable[[Path], None]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="it is a device, pipe or socket: give the name of a file"):
        attempt(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_name_that_is_too_long(tmp_path: Path, attempt: Callable[[Path], None]) -> None:
    with pytest.raises(OutputError, match="the file name is too long: choose a shorter one"):
        attempt(tmp_path / ("x" * 300))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("old", [None, b"old"])
def test_asking_leaves_nothing_behind(tmp_path: Path, old: bytes | None) -> None:
    if old is not None:
        (tmp_path / "out").write_bytes(old)
    check_writable(tmp_path / "out")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_path_without_a_folder_is_in_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically(Path("out"), b"data")
    assert (tmp_path / "out").read_bytes() == b"data"


class TestFolder:
    FILES: ClassVar = {"a.txt": b"one", "1/model.plan": bytes(range(256))}

    def test_is_what_was_given(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "new", self.FILES)
        for name, data in self.FILES.items():
            assert (tmp_path / "new" / name).read_bytes() == data
        assert [path.name for path in tmp_path.iterdir()] == ["new"]

    @pytest.mark.parametrize("there", ["file", "folder", "broken link"])
    def test_never_takes_the_place_of_something(self, there: str, tmp_path: Path) -> None:
        place = tmp_path / "old"
        {"file": place.touch, "folder": place.mkdir, "broken link": lambda: place.symlink_to("nowhere")}[there]()
        with pytest.raises(OutputError, match=f"cannot write '{place}': it exists already: remove it, or give another"):
            write_folder(place, self.FILES)
        assert [path.name for path in tmp_path.iterdir()] == ["old"]

    def test_is_complete_or_absent(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="the file name is too long"):
            write_folder(tmp_path / "new", {**self.FILES, "b" * 300: b""})
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_parent_is_not_created(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="gone' does not exist: create it first"):
            write_folder(tmp_path / "gone" / "new", self.FILES)
        assert list(tmp_path.iterdir()) == []
