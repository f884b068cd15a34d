from pathlib import Path

import pytest

from app.errors import Corrupt, MissingWeights, NotFound
from app.storage.states import ArtifactKind
from app.storage.tables import Artifact
from app.storage.weights import WeightFile, WeightStore

VERSION = "01900000-0000-7000-8000-0000000000ab"


def artifact(file: WeightFile) -> Artifact:
    return Artifact(version_id=VERSION, kind=file.kind, sha256=file.sha256, nbytes=file.nbytes)


def test_what_is_written_is_read_back_and_leaves_no_partial_file(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    file = store.write(VERSION, ArtifactKind.WEIGHTS, b"weights")
    state = store.write(VERSION, ArtifactKind.LEARNER_STATE, b"state")
    assert store.read(VERSION, artifact(file)) == b"weights"
    assert store.read(VERSION, artifact(state)) == b"state"
    assert sorted(path.name for path in (tmp_path / "ab").iterdir()) == [
        f"{VERSION}.learner.safetensors",
        f"{VERSION}.safetensors",
    ]


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    file = store.write(VERSION, ArtifactKind.WEIGHTS, b"weights")
    (tmp_path / "ab" / f"{VERSION}.safetensors").write_bytes(b"weightS")
    with pytest.raises(Corrupt, match="digest"):
        store.read(VERSION, artifact(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    file = store.write(VERSION, ArtifactKind.WEIGHTS, b"weights")
    store.delete(VERSION)
    store.delete(VERSION)
    with pytest.raises(MissingWeights):
        store.read(VERSION, artifact(file))


def test_no_path_comes_from_outside(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    with pytest.raises(Corrupt):
        store.write("../../etc/passwd", ArtifactKind.WEIGHTS, b"")
    with pytest.raises(NotFound):
        store.read_base("sha256:../../etc/passwd")


def test_base_weights_are_named_by_their_digest(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    digest = store.add_base(b"base")
    assert store.add_base(b"base") == digest
    assert store.read_base(digest) == b"base"
    next((tmp_path / "base").iterdir()).write_bytes(b"bare")
    with pytest.raises(Corrupt):
        store.read_base(digest)


def test_orphans_are_swept_once_they_are_old(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    store.write(VERSION, ArtifactKind.WEIGHTS, b"weights")
    written = next((tmp_path / "ab").iterdir()).stat().st_mtime
    assert store.sweep(100, written + 50, set()) == 0
    assert store.sweep(100, written + 150, {VERSION}) == 0
    assert store.sweep(100, written + 150, set()) == 1
