"""What the one pass over a set finds: duplicates, near-duplicates, contradictions, ids that stay the same."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from app.cli.importing.duplicates import Grid, NearPictures
from app.cli.importing.picture import THUMB_BYTES, look, png
from app.cli.importing.sets import Columns, opened
from app.cli.importing.survey import Survey, Surveyor
from app.errors import Invalid


def survey(path: Path, test: Path | None = None, *, keep_duplicates: bool = False, source: str = "import") -> Survey:
    with opened(path, test, Columns()) as (train, tested):
        surveyor = Surveyor(source_name=source, keep_duplicates=keep_duplicates, on_read=lambda done: None)
        return surveyor.survey(train, tested)


def table(file: Path, *rows: str) -> Path:
    file.write_text("\n".join(["a,b,label", *rows]) + "\n")
    return file


def noise(seed: int, side: int = 32) -> npt.NDArray[np.uint8]:
    """A picture of broad patches, as photos have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def test_each_kind_of_what_is_left_out_is_counted_apart(tmp_path: Path) -> None:
    learned = table(
        tmp_path / "set.csv",
        "1,0,x",
        "1,0,x",  # exact
        "1.0001,0,x",  # near
        "5,5,x",
        "5,5,y",  # contradicts the line above
        "9,9,y",  # in the test set
        "empty,1,y",
        "3,3,y",
    )
    tested = table(tmp_path / "test.csv", "9,9,y", "8,8,y")

    found = survey(learned, tested)

    assert [item.index for item in found.train] == [0, 7]
    assert [item.test for item in found.test] == [True, True]
    assert (found.exact, found.near, found.conflicting, found.leaked) == (1, 1, 2, 1)
    assert found.conflicts == ["line 5: the same content is labelled x and y"]
    assert found.unreadable == ["line 8: column 'a' holds 'empty', which is no number"]
    assert found.per_class == {"x": 1, "y": 1}
    assert found.input == {"kind": "features", "size": 2}


def test_alike_samples_of_two_classes_are_both_kept(tmp_path: Path) -> None:
    found = survey(table(tmp_path / "set.csv", "1,0,x", "1.0001,0,y", "9,9,x"))

    assert len(found.train) == 3


def test_kept_duplicates_have_ids_of_their_own(tmp_path: Path) -> None:
    file = table(tmp_path / "set.csv", "1,0,x", "1,0,x", "2,0,y")

    found = survey(file, keep_duplicates=True)

    assert len({item.client_id for item in found.train}) == 3
    assert found.train == survey(file, keep_duplicates=True).train


def test_an_id_depends_on_content_label_source_and_split_and_not_on_the_place(tmp_path: Path) -> None:
    ids = {
        name: survey(table(tmp_path / "set.csv", *rows), source=source).train[-1].client_id
        for name, rows, source in [
            ("alone", ["1,0,x"], "import"),
            ("elsewhere", ["7,7,z", "1,0,x"], "import"),
            ("relabelled", ["1,0,y"], "import"),
            ("of another source", ["1,0,x"], "anna"),
        ]
    }
    tested = survey(table(tmp_path / "set.csv", "4,4,x"), table(tmp_path / "test.csv", "1,0,x")).test[0].client_id

    assert ids["alone"] == ids["elsewhere"]
    assert len({*ids.values(), tested}) == 4


def test_a_set_with_nothing_to_learn_is_told(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="contradicts itself"):
        survey(table(tmp_path / "set.csv", "1,0,x", "1,0,y"))


def test_the_input_of_a_new_model_is_seen_in_the_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", x=np.stack([noise(seed, 28)[:, :, 0] for seed in range(3)]), y=np.arange(3))
    np.savez(tmp_path / "colour.npz", x=np.stack([noise(seed, 8) for seed in range(3)]), y=np.arange(3))
    for name, side in (("1", 100), ("2", 150), ("3", 400)):
        (tmp_path / "photos" / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(int(name), side)).save(tmp_path / "photos" / "cat" / f"{name}.jpg")

    assert survey(tmp_path / "grey.npz").input == {"kind": "image", "size": 28, "channels": 1}
    assert survey(tmp_path / "colour.npz").input == {"kind": "image", "size": 8, "channels": 3}
    assert survey(tmp_path / "photos").input == {"kind": "image", "size": 128, "channels": 3}


def test_the_same_picture_smaller_or_a_trace_brighter_is_a_near_duplicate_and_another_one_is_not() -> None:
    picture = Image.fromarray(noise(1, 96))
    near = NearPictures()
    variants = [picture, picture.resize((64, 64)), ImageEnhance.Brightness(picture).enhance(1.01)]
    kept = []
    for image in [*variants, Image.fromarray(noise(2, 96))]:
        seen = look(png(np.asarray(image)))
        kept.append(near.add(seen.bits, seen.thumb))

    assert kept == [True, False, False, True]


def test_the_same_edges_in_another_colour_are_no_duplicate() -> None:
    near = NearPictures()

    assert near.add(5, bytes([200, 0, 0] * (THUMB_BYTES // 3)))
    assert near.add(5, bytes([0, 200, 0] * (THUMB_BYTES // 3)))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(0, 15), st.data())
def test_the_bands_miss_no_hash_within_the_distance(hashes: list[int], distance: int, data: st.DataObject) -> None:
    near = NearPictures(distance)
    thumb = bytes(THUMB_BYTES)
    kept: list[int] = []
    for bits in hashes:
        flipped = data.draw(st.sets(st.integers(0, 63), max_size=distance + 1))
        changed = bits ^ sum(1 << place for place in flipped)
        for one in (bits, changed):
            is_new = near.add(one, thumb)
            assert is_new == all((one ^ other).bit_count() > distance for other in kept)
            kept += [one] if is_new else []


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2))
def test_a_vector_is_alike_itself_and_what_is_far_off_is_not(row: list[float]) -> None:
    grid = Grid(np.array([[0.0, 0.0], [1.0, 0.0]]))
    here = np.array(row)

    assert grid.cell(here) == grid.cell(here + 0.0)
    assert grid.cell(here) != grid.cell(here + np.array([1.0, 0.0]))
    assert grid.cell(np.array([-0.0, 0.0])) == grid.cell(np.array([0.0, -0.0]))
