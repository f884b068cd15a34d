"""Files that users bring, and weights that torchvision offers."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from app.errors import InvalidNetwork
from app.networks.pretrained import base_weights_from, fetch_imagenet, read_weights_file
from app.networks.serialization import to_bytes

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def saved(path: Path, what: Any) -> Path:
    torch.save(what, path)
    return path


def same(path: Path) -> bool:
    back = read_weights_file(path)
    return list(back) == list(STATE) and all(torch.equal(back[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".PTH"])
def test_pickled_state_dicts_are_read(tmp_path: Path, suffix: str) -> None:
    assert same(saved(tmp_path / f"net{suffix}", STATE))


def test_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(to_bytes(STATE))
    assert read_weights_file(path).keys() == STATE.keys()


def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path) -> None:
    prefixed = {f"module.{name}": value for name, value in STATE.items()}
    assert same(saved(tmp_path / "a.pth", {"state_dict": prefixed, "best_prec1": 91.78, "epoch": 3}))
    assert same(saved(tmp_path / "b.pth", {"model": STATE}))
    assert same(saved(tmp_path / "c.pth", prefixed))


def test_what_is_read_can_be_stored_though_tensors_shared_memory(tmp_path: Path) -> None:
    whole = torch.zeros(3, 4)
    tensors = read_weights_file(saved(tmp_path / "a.pth", {"a": whole, "b": whole, "c": nn.Parameter(whole.t())}))
    assert len(to_bytes(tensors)) > 3 * 48


class Trap:
    """Runs code when unpickled carelessly."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code in a pickle was run",))


@pytest.mark.parametrize("content", [Trap(), {"state_dict": STATE, "more": Trap()}, nn.Linear(2, 2)])
def test_pickles_that_hold_more_than_tensors_are_refused_and_not_run(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InvalidNetwork, match="more than tensors"):
        read_weights_file(saved(tmp_path / "net.pth", content))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content))
    with pytest.raises(InvalidNetwork):
        read_weights_file(tmp_path / "plain.pth")


@pytest.mark.parametrize("content", [{}, [1], {"a": 3}, {1: torch.zeros(1)}, torch.zeros(2), {"a": {"b": STATE}}])
def test_other_contents_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InvalidNetwork, match="expected names and tensors"):
        read_weights_file(saved(tmp_path / "net.pth", content))


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidNetwork, match="no plain tensor"):
        read_weights_file(saved(tmp_path / "net.pth", {"a": torch.eye(3).to_sparse()}))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip", b"\x80\x02."])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(InvalidNetwork, match=r"net\."):
        read_weights_file(path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", STATE)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InvalidNetwork, match="damaged"):
        read_weights_file(path)


def test_other_suffixes_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidNetwork, match=r"expected a \.safetensors"):
        read_weights_file(tmp_path / "net.onnx")
    with pytest.raises(InvalidNetwork, match="No such file"):
        read_weights_file(tmp_path / "net.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(InvalidNetwork, match="directory"):
        read_weights_file(tmp_path / "folder.pth")


def test_imagenet_weights_come_from_torchvision_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = torchvision.models.get_model("mobilenet_v3_small").state_dict()
    url: str = torchvision.models.get_model_weights("mobilenet_v3_small").DEFAULT.url
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    cached = saved(tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1], state)

    resolve = base_weights_from(lambda _: b"", download=True)
    assert resolve("imagenet:mobilenet_v3_small").keys() == state.keys()

    cached.write_bytes(b"damaged")
    with pytest.raises(InvalidNetwork, match=r"is damaged.*weights add"):
        resolve("imagenet:mobilenet_v3_small")


def test_nothing_is_fetched_where_the_setting_forbids_it() -> None:
    with pytest.raises(InvalidNetwork, match=r"PERENNIAL_WEIGHTS_DOWNLOAD is off.*weights add"):
        fetch_imagenet("resnet18", download=False)


@pytest.mark.parametrize("architecture", ["mlp", "small_cnn", "mine"])
def test_networks_that_are_not_torchvision_s_have_no_imagenet_weights(architecture: str) -> None:
    with pytest.raises(InvalidNetwork, match='no "imagenet" weights'):
        fetch_imagenet(architecture, download=True)
