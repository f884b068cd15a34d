"""Labelled sets as the importer opens them: folders of pictures, tables, arrays."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli.importing.arrays import Arrays
from app.cli.importing.folder import PictureFolder
from app.cli.importing.sets import Columns, opened
from app.cli.importing.source import Source, Unreadable
from app.cli.importing.table import Table
from app.errors import Invalid


def write_picture(file: Path, grey: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (5, 4), grey).save(file)


def numbers(source: Source, index: int) -> list[float]:
    values: list[float] = np.frombuffer(source.read(index), "<f8").tolist()
    return values


def test_a_folder_is_a_class_and_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("dog/b.png", "dog/deeper/a.jpg", "cat/1.png", ".hidden/x.png", "cat/.x.png"):
        write_picture(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")

    found = PictureFolder(tmp_path)

    rows = [(found.label(index), found.place(index)) for index in range(len(found))]
    assert rows == [("cat", "cat/1.png"), ("dog", "dog/b.png"), ("dog", "dog/deeper/a.jpg")]


def test_a_picture_of_a_form_the_server_does_not_take_becomes_a_png(tmp_path: Path) -> None:
    write_picture(tmp_path / "cat" / "1.bmp", 77)
    write_picture(tmp_path / "cat" / "2.png", 77)
    (tmp_path / "cat" / "3.gif").write_bytes(b"no picture at all")
    found = PictureFolder(tmp_path)

    with Image.open(BytesIO(found.read(0))) as image:
        assert (image.format, image.getpixel((0, 0))) == ("PNG", 77)
    assert found.read(1) == (tmp_path / "cat" / "2.png").read_bytes()
    with pytest.raises(Unreadable):
        found.read(2)


def test_a_test_folder_beside_train_is_found(tmp_path: Path) -> None:
    write_picture(tmp_path / "train" / "cat" / "1.png")
    write_picture(tmp_path / "test" / "cat" / "2.png")

    with opened(tmp_path, None, Columns()) as (train, test):
        assert train.place(0) == "cat/1.png"
        assert test is not None
        assert test.place(0) == "cat/2.png"


def test_a_row_of_a_table_is_found_again_whatever_stands_between(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.write_text(
        'width,label,height\r\n1,a,2\r\n\r\n"3","two\r\nlines",4\r\n5,ü,6', encoding="utf-8-sig", newline=""
    )

    table = Table(file)

    assert [table.label(index) for index in range(3)] == ["a", "two\r\nlines", "ü"]
    assert [table.place(index) for index in range(3)] == ["line 2", "line 4", "line 6"]
    assert [numbers(table, index) for index in (2, 0, 1)] == [[5, 6], [1, 2], [3, 4]]
    table.close()


@pytest.mark.parametrize(
    ("row", "words"),
    [("1,", "column 'b' is empty"), ("1,red", "no number"), ("1,nan", "no finite"), ("1", "expected 3 columns")],
)
def test_a_row_that_is_not_all_numbers_is_told_and_the_others_are_read(tmp_path: Path, row: str, words: str) -> None:
    file = tmp_path / "set.tsv"
    file.write_text(f"a,b,class\n{row},x\n1,2,x\n".replace(",", "\t"))

    table = Table(file)

    with pytest.raises(Unreadable, match=words):
        table.read(0)
    assert numbers(table, 1) == [1, 2]
    table.close()


def test_columns_can_be_named_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.write_text("id,kind,a\n7,x,1\n")

    table = Table(file, "kind", ignored=["id"])

    assert (table.label(0), numbers(table, 0)) == ("x", [1])
    table.close()
    with pytest.raises(Invalid, match="--label-column"):
        Table(file)
    with pytest.raises(Invalid, match="no column 'nothing'"):
        Table(file, "nothing")


def test_a_table_may_name_pictures_from_its_own_folder(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures" / "1.png")
    (tmp_path / "set.csv").write_text("path,label\npictures/1.png,cat\npictures/2.png,cat\n")

    with opened(tmp_path / "set.csv", None, Columns(image="path")) as (table, _):
        assert table.kind == "image"
        assert table.read(0) == (tmp_path / "pictures" / "1.png").read_bytes()
        with pytest.raises(Unreadable, match=r"2\.png"):
            table.read(1)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3)])
def test_arrays_of_bytes_are_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.savez_compressed(tmp_path / "set.npz", x=x, y=np.array([1, 0]), class_names=np.array(["cat", "dog"]))

    arrays = Arrays(tmp_path / "set.npz")

    assert [arrays.label(0), arrays.label(1)] == ["dog", "cat"]
    with Image.open(BytesIO(arrays.read(1))) as image:
        assert np.array_equal(np.asarray(image).reshape(shape[1:]), x[1])
    arrays.close()


def test_arrays_of_two_axes_are_vectors_and_a_test_part_is_found(tmp_path: Path) -> None:
    x = np.array([[1.5, 2], [3, np.inf]], np.float32)
    np.savez(tmp_path / "set.npz", x_train=x, y_train=np.array([[1.0], [2.0]]), x_test=x[:1], y_test=np.array(["a"]))

    with opened(tmp_path / "set.npz", None, Columns()) as (train, test):
        assert (train.label(0), numbers(train, 0)) == ("1", [1.5, 2])
        with pytest.raises(Unreadable, match="not finite"):
            train.read(1)
        assert test is not None
        assert test.label(0) == "a"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 3))}, "expected arrays"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3)}, "one y for each x"),
        ({"x": np.zeros((2, 3, 3)), "y": np.zeros(2)}, "uint8"),
        ({"x": np.zeros((2, 3)), "y": np.array([0, 0.5])}, "fractions"),
        ({"x": np.zeros((2, 3)), "y": np.array([{}, {}])}, "cannot be read"),
        ({"x": np.zeros((1, 3)), "y": np.array([2]), "class_names": np.array(["a"])}, "beyond"),
    ],
)
def test_arrays_that_are_no_labelled_set_are_told(
    tmp_path: Path, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]], words: str
) -> None:
    np.savez(tmp_path / "set.npz", allow_pickle=True, **arrays)

    with pytest.raises(Invalid, match=words), opened(tmp_path / "set.npz", None, Columns()):
        pass


def test_what_is_no_set_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.json").touch()
    (tmp_path / "set.csv").write_text("a,label\n1,x\n")
    write_picture(tmp_path / "pictures" / "cat" / "1.png")
    for name, words in (("empty", "no pictures"), ("set.json", "neither"), ("absent", "no file or folder")):
        with pytest.raises(Invalid, match=words), opened(tmp_path / name, None, Columns()):
            pass
    with pytest.raises(Invalid, match="one kind"), opened(tmp_path / "set.csv", tmp_path / "pictures", Columns()):
        pass
