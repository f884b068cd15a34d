"""Weight files on the local disk: written durably, never overwritten, verified when read.

Knows bytes, digests and paths; knows nothing of tensors or of the database. A file's path follows from its
version's id and kind; base weights, which never change, are named by their digest.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from uuid import uuid4

from app.errors import Corrupt, MissingWeights, NotFound
from app.storage.killpoint import KillPoint
from app.storage.states import ArtifactKind
from app.storage.tables import Artifact

_SUFFIX = {ArtifactKind.WEIGHTS: "safetensors", ArtifactKind.LEARNER_STATE: "learner.safetensors"}
_PARTIAL = ".partial"
_PIECE = 1 << 20


@dataclass(frozen=True)
class WeightFile:
    """What was written: enough to verify it for ever."""

    kind: ArtifactKind
    sha256: str
    nbytes: int


class WeightStore:
    """The folder of weight files. Safe for several processes: a name is written once, by rename."""

    def __init__(
        self, root: Path, kill_point: KillPoint | None = None, pause: Callable[[], object] = lambda: None
    ) -> None:
        """`pause` is called between the pieces of what `read` reads and `write` writes."""
        self._root = root
        self._kill_point = kill_point or KillPoint()
        self._pause = pause

    def write(self, version_id: str, kind: ArtifactKind, data: bytes | bytearray) -> WeightFile:
        """Store `data` so that it survives a power cut once this returns."""
        return WeightFile(kind, self._durable_write(self._path(version_id, kind), data), len(data))

    def read(self, version_id: str, artifact: Artifact) -> bytes:
        """The verified bytes of an artifact; `MissingWeights` or `Corrupt` when they are not what was written."""
        kind = ArtifactKind(artifact.kind)
        what = f"the {kind.value.replace('_', ' ')} file of version id {version_id}"
        return _verified(self._path(version_id, kind), what, artifact.sha256, self._pause)

    @contextmanager
    def verified(self, version_id: str, artifact: Artifact, pause: Callable[[], object]) -> Iterator[Path]:
        """Verify an artifact piece by piece, and give its path for the block, which may map it.

        Raises what `read` does, also at the end of the block if the file was exchanged or changed meanwhile. The
        bytes are read, not looked at through a mapping, so that a damaged disk is an error and not a signal.
        """
        kind = ArtifactKind(artifact.kind)
        what = f"the {kind.value.replace('_', ' ')} file of version id {version_id}"
        path = self._path(version_id, kind)
        try:
            with path.open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                if before.st_size != artifact.nbytes:
                    raise Corrupt(what, f"it holds {before.st_size} bytes, its record says {artifact.nbytes}")
                _require(what, _digest(file, pause), artifact.sha256)
                yield path
                if _identity(before) != _identity(path.stat()):
                    raise Corrupt(what, "it was changed while it was read")
        except FileNotFoundError:
            raise MissingWeights(what) from None

    def delete(self, version_id: str) -> None:
        """Let the files of a version go; those already gone are no error."""
        for kind in ArtifactKind:
            self.delete_artifact(version_id, kind)

    def delete_artifact(self, version_id: str, kind: ArtifactKind) -> None:
        self._path(version_id, kind).unlink(missing_ok=True)

    def add_base(self, data: bytes | bytearray) -> str:
        """Store base weights; the answer, `sha256:…`, is their only name."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._base_path(digest)
        if not path.exists():
            self._durable_write(path, data)
        return f"sha256:{digest}"

    def read_base(self, digest: str) -> bytes:
        """The verified bytes of base weights named `sha256:…`; `NotFound` when they were never added here."""
        match = re.fullmatch(r"sha256:([0-9a-f]{64})", digest)
        path = self._base_path(match[1]) if match else None
        if match is None or path is None or not path.exists():
            raise NotFound(f"There are no base weights {digest!r} here. `perennial weights add FILE` brings them in.")
        return _verified(path, f"base weights {digest}", match[1], self._pause)

    def sweep(self, older_than_seconds: float, now_seconds: float, known: set[str]) -> int:
        """Remove files of versions that have no row, once they are old; the number removed is the answer."""
        removed = 0
        for path in self._root.glob("??/*"):
            version_id = path.name.lstrip(".").split(".")[0]
            try:
                old = now_seconds - path.stat().st_mtime > older_than_seconds
            except FileNotFoundError:
                continue  # another worker renamed it or let it go just now
            if old and (version_id not in known or path.name.endswith(_PARTIAL)):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _path(self, version_id: str, kind: ArtifactKind) -> Path:
        # The id is a UUID from our own database; the last two digits spread the files over folders.
        if not re.fullmatch(r"[0-9a-f-]{36}", version_id):
            raise Corrupt(f"version id {version_id!r}", "it is no UUID")
        return self._root / version_id[-2:] / f"{version_id}.{_SUFFIX[kind]}"

    def _base_path(self, digest: str) -> Path:
        return self._root / "base" / f"{digest}.safetensors"

    def _durable_write(self, path: Path, data: bytes | bytearray) -> str:
        """Write beside, fsync, rename, fsync the folder (and its parent, which may be new); give the sha256."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid4().hex}{_PARTIAL}")
        try:
            digest, half = hashlib.sha256(), len(data) // 2
            with partial.open("xb") as file:
                for piece in _pieces(data):
                    file.write(piece)
                    digest.update(piece)
                    if half >= 0 and file.tell() >= half:
                        half = -1
                        self._kill_point("during_write")
                    self._pause()
                file.flush()
                os.fsync(file.fileno())
            partial.chmod(0o640)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _fsync_folder(path.parent)
        _fsync_folder(path.parent.parent)
        return digest.hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _verified(path: Path, what: str, sha256: str, pause: Callable[[], object]) -> bytes:
    digest, pieces = hashlib.sha256(), []
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                pieces.append(piece)
                pause()
    except FileNotFoundError:
        raise MissingWeights(what) from None
    _require(what, digest.hexdigest(), sha256)
    return b"".join(pieces)


def _pieces(data: bytes | bytearray) -> Iterator[memoryview]:
    whole = memoryview(data)
    for start in range(0, len(whole), _PIECE):
        yield whole[start : start + _PIECE]


def _digest(file: FileIO, pause: Callable[[], object]) -> str:
    """Give the sha256 of what an open file holds; both the reading and the hashing leave other threads alone."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(_PIECE))
    while count := file.readinto(piece):
        digest.update(piece[:count])
        pause()
    return digest.hexdigest()


def _require(what: str, found: str, sha256: str) -> None:
    if found != sha256:
        raise Corrupt(what, f"its digest is {found[:12]}…, its record says {sha256[:12]}…")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
