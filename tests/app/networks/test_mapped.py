"""Mapped weights: verified before they are used, right in a network that nobody initialised, and gone when let go."""

import copy
import gc
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from app.errors import Corrupt, MissingWeights
from app.networks.buffer_pool import BufferPool, Seat
from app.networks.catalog import build, skeleton
from app.networks.serialization import ALIGNMENT, go_on, mapped, to_bytes
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput
from app.storage.states import ArtifactKind
from app.storage.tables import Artifact
from app.storage.weights import WeightStore

VERSION = "01900000-0000-7000-8000-0000000000ab"


class Tied(nn.Module):
    """A network with a weight under two names, a list that holds it too, and a table that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.all = [self.first.weight]
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.plain = torch.ones(4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        mixed: Tensor = self.second(self.first(inputs)) @ self.all[0] + self.table * self.plain
        return self.head(mixed)


def tied(classes: int) -> nn.Module:
    return Tied()


def saved(folder: Path, tensors: dict[str, Tensor]) -> tuple[WeightStore, Artifact, Path]:
    store = WeightStore(folder)
    file = store.write(VERSION, ArtifactKind.WEIGHTS, to_bytes(tensors))
    artifact = Artifact(version_id=VERSION, kind=file.kind, sha256=file.sha256, nbytes=file.nbytes)
    return store, artifact, folder / "ab" / f"{VERSION}.safetensors"


def handles_now() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def maps_of(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def test_a_user_s_network_keeps_its_ties_and_what_no_file_holds() -> None:
    builders = {"tied": f"{__name__}:tied"}
    spec = NetworkSpec("tied", FeaturesInput(size=4), (1, 2))
    network = build(spec, builders)
    tensors = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    expected = copy.deepcopy(network)
    expected.load_state_dict(tensors)
    form = skeleton(spec, builders)

    form.require_fit(spec, tensors, go_on)
    module = form.filled(tensors).module

    inputs = torch.randn(3, 4)
    assert torch.equal(module(inputs), expected.backbone(inputs))
    assert module.get_parameter("first.weight") is module.get_parameter("second.weight")
    assert form.filled(network.state_dict()).module.get_parameter("first.weight") is not module.get_parameter(
        "first.weight"
    )


def test_nothing_is_drawn_for_a_skeleton() -> None:
    before = torch.get_rng_state()
    form = skeleton(NetworkSpec("resnet18", ImageInput(size=32), (1,)), {})
    assert torch.equal(torch.get_rng_state(), before)
    assert {tensor.numel() for tensor in form.module.state_dict().values()} == {0}
    assert all(shape.is_meta for shape in form.shapes.values())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapping_holds_no_file_handle_and_goes_with_the_last_tensor(tmp_path: Path) -> None:
    network = build(NetworkSpec("mlp", FeaturesInput(size=4), (1,)), {})
    store, artifact, path = saved(tmp_path, network.state_dict())
    handles = handles_now()
    with store.verified(VERSION, artifact, go_on) as where:
        tensors = mapped(where)
    assert handles_now() == handles
    assert maps_of(path) == 1

    path.unlink()
    assert torch.equal(tensors["head.weight"], network.head.weight)

    del tensors
    gc.collect()
    assert maps_of(path) == 0


def sizes(*counts: int) -> dict[str, Tensor]:
    return {f"{count:03}": torch.arange(float(count)) for count in counts}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_tensors_begin_where_torch_s_own_do_and_what_can_be_is_mapped(tmp_path: Path) -> None:
    tensors = {**sizes(1, 3, 16, 17, 24, 32, 40, 160), "steps": torch.tensor(7), "byte": torch.ones(1).bool()}
    _, _, path = saved(tmp_path, tensors)
    found = mapped(path)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())
    assert not any(tensor.data_ptr() % ALIGNMENT for tensor in found.values())
    file = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
    ]
    ((start, end),) = [(int(one, 16), int(other, 16)) for one, other in file]
    there = {name for name, tensor in found.items() if start <= tensor.data_ptr() < end}
    assert there >= {"016", "032", "160"}


def test_a_file_that_others_laid_out_is_right_too(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    tensors = {"steps": torch.tensor(7), **sizes(3, 16, 32)}
    safetensors.torch.save_file(tensors, path)
    found = mapped(path)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())
    assert not any(tensor.data_ptr() % ALIGNMENT for tensor in found.values())


def test_who_writes_to_a_mapped_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    _, _, path = saved(tmp_path, {"a": torch.zeros(8)})
    before = path.read_bytes()
    mapped(path)["a"].add_(1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "bytes, its record says"),
        (lambda data: data + b"\0", "bytes, its record says"),
        (lambda data: b"", "bytes, its record says"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "digest"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "digest"),
    ],
)
def test_a_file_that_is_not_what_was_written_is_not_mapped(tmp_path: Path, damage: object, words: str) -> None:
    store, artifact, path = saved(tmp_path, {"a": torch.ones(8)})
    path.chmod(0o600)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(Corrupt, match=words), store.verified(VERSION, artifact, go_on):
        pytest.fail("it was given out")


def test_a_file_that_changes_while_it_is_mapped_is_refused(tmp_path: Path) -> None:
    store, artifact, path = saved(tmp_path, {"a": torch.ones(8)})
    data = path.read_bytes()
    path.chmod(0o600)
    with pytest.raises(Corrupt, match="changed"), store.verified(VERSION, artifact, go_on):
        path.write_bytes(data[:-4])
    path.write_bytes(data)
    other = path.with_name("other")
    other.write_bytes(data)
    with pytest.raises(Corrupt, match="changed"), store.verified(VERSION, artifact, go_on):
        other.replace(path)
    with pytest.raises(MissingWeights), store.verified(VERSION, artifact, go_on):
        path.unlink()


def test_there_is_a_pause_in_each_mebibyte(tmp_path: Path) -> None:
    store, artifact, _ = saved(tmp_path, {"a": torch.ones(3 << 18)})  # 3 MiB and a header
    pauses: list[None] = []
    with store.verified(VERSION, artifact, lambda: pauses.append(None)):
        pass
    assert len(pauses) == 4


def devices() -> list[object]:
    cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
    return ["cpu", pytest.param("cuda", marks=cuda)]


@pytest.mark.parametrize("device", devices())
def test_memory_and_what_was_made_for_it_are_used_again_when_their_module_is_gone(device: str) -> None:
    pool = BufferPool(torch.device(device), spare=2)
    network = build(NetworkSpec("mlp", FeaturesInput(size=4), (1,)), {})
    form = skeleton(network.spec, {})
    tensors = network.state_dict()
    built: list[None] = []

    def make(buffers: Mapping[str, Tensor]) -> nn.Module:
        built.append(None)
        return form.filled(tensors, lambda name, _: buffers[name]).module

    def load(shift: int, key: str = "one make") -> tuple[nn.Module, Seat]:
        own = {name: tensors[f"backbone.{name}"] + shift for name in form.shapes}
        module, seat = pool.seated(key, form.shapes, own, make)
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor.cpu(), own[name])
        return module, seat

    held = [load(number) for number in range(3)]
    assert pool.free(form.shapes) == 0
    seats = [seat for _, seat in held]
    for seat in seats:
        seat.made["a graph"] = seat.module
    addresses = [seat.buffers["out.0.weight"].data_ptr() for seat in seats]
    assert len({*addresses}) == len(built) == 3

    del held, seat
    gc.collect()

    assert pool.free(form.shapes) == 2
    module, seat = load(7)
    assert seat in seats
    assert len(built) == 3
    assert seat.made["a graph"] is seat.module is not module
    assert module.get_parameter("out.0.weight").data_ptr() == seat.buffers["out.0.weight"].data_ptr()

    _, other = load(8, "another make")
    assert other.buffers["out.0.weight"].data_ptr() in addresses
    assert not other.made
    assert len(built) == 4


def test_without_a_key_and_after_a_failure_the_memory_alone_is_used_again() -> None:
    pool = BufferPool(torch.device("cpu"), spare=1)
    shapes = {"weight": torch.empty(2, 2, device="meta")}
    numbers = {"weight": torch.ones(2, 2)}
    built: list[nn.Module] = []

    def make(buffers: Mapping[str, Tensor]) -> nn.Module:
        built.append(nn.Linear(2, 2, bias=False))
        built[-1].weight.data = buffers["weight"]
        return built[-1]

    def failing(buffers: Mapping[str, Tensor]) -> nn.Module:
        raise ValueError("no network")

    with pytest.raises(ValueError, match="no network"):
        pool.seated("make", shapes, numbers, failing)
    assert pool.free(shapes) == 1
    places = set()
    for _ in range(3):
        module, seat = pool.seated(None, shapes, numbers, make)
        assert not seat.made
        seat.made["a graph"] = module.weight.shape
        places.add(seat.buffers["weight"].data_ptr())
        del module, seat
        gc.collect()
    assert len(built) == 3
    assert len(places) == 1
