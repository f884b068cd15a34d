"""Loading: what versions have in common is read once and held once, and what does not fit is not loaded."""

import copy
import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import update

from app.errors import Corrupt, MissingBase, MissingWeights
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.serialization import backbone_digest, to_bytes
from app.networks.standardize import standardize
from app.recipe import ImageInput
from app.serving.executions import Executions
from app.serving.ways import PLAIN, Options
from app.storage.states import FileState
from app.storage.tables import Version
from tests.app.shelf import Shelf, bias, moved_all, open_shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = open_shelf(tmp_path)
    yield shelf
    shelf.database.close()


def seen(network: Network) -> None:
    """Let the network see samples, which moves buffers of its backbone, and change its head."""
    standardize(network, torch.arange(12.0).reshape(3, 4))
    bias(3)(network)


def test_a_whole_version_and_a_delta_over_it_come_back_bit_equal(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta = shelf.delta(whole, bias(7))
    loader = shelf.loader()

    expected = copy.deepcopy(loader.load(whole))
    bias(7)(expected)

    assert to_bytes(loader.load(delta).state_dict()) == to_bytes(expected.state_dict())
    assert shelf.file(delta).stat().st_size < shelf.file(whole).stat().st_size / 10


def test_versions_over_one_base_hold_the_same_module(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    first = shelf.delta(whole, bias(1))
    second = shelf.delta(first, bias(2))
    loader = shelf.loader()

    networks = [loader.load(version) for version in (first, whole, second, whole)]

    assert len({id(network.backbone) for network in networks}) == 1
    assert [float(network.head.bias[1].detach()) for network in networks] == [
        1.0,
        pytest.approx(0.01),
        2.0,
        pytest.approx(0.01),
    ]


def test_the_base_of_a_delta_s_child_is_the_delta_s_base(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta = shelf.delta(whole, bias(1))
    child = shelf.delta(delta, bias(2))
    assert (delta.base_id, child.base_id, child.parent_id) == (whole.id, whole.id, delta.id)


def test_after_the_first_load_only_the_deltas_are_read(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    deltas = [shelf.delta(whole, bias(number)) for number in range(50)]
    loader = shelf.loader()
    served = loader.load(deltas[0])
    shelf.file(whole).unlink()

    for number, version in enumerate(deltas):
        before, served = served, loader.load(version)
        assert served.backbone is before.backbone
        assert float(served.head.bias[1].detach()) == number


def test_buffers_that_moved_are_shared_by_all_versions_that_moved_them_alike(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    first = shelf.delta(whole, seen)
    second = shelf.delta(first, bias(5))
    loader = shelf.loader()
    one = loader.load(first)
    shelf.file(whole).unlink()  # the moved backbone rests on the base's tensors, so the base stays loaded with it

    two = loader.load(second)

    assert one.backbone is two.backbone
    assert loader.backbone_of(first)[1] == backbone_digest(two)


def test_models_of_one_make_and_seed_share_their_first_backbone(shelf: Shelf) -> None:
    one, twin = shelf.create("one"), shelf.create("twin")
    other = shelf.create("other", seed=1)
    loader = shelf.loader()
    networks = [loader.load(version) for version in (one, twin, other)]
    assert networks[0].backbone is networks[1].backbone
    assert networks[0].backbone is not networks[2].backbone
    assert loader.load(shelf.delta(twin, bias(1))).backbone is networks[0].backbone


def test_the_digest_is_of_the_backbone_and_needs_no_file_once_it_is_loaded(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta = shelf.delta(whole, bias(1))
    loader = shelf.loader(keep=1)
    module, digest = loader.backbone_of(delta)
    for version in (whole, delta):
        shelf.file(version).unlink()

    assert loader.backbone_of(delta) == (module, digest)
    assert digest != shelf.loader().backbone_of(shelf.create("fresh"))[1]


def test_a_backbone_nobody_holds_is_let_go_unless_it_is_to_be_kept(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    for keep in (0, 1):
        loader = shelf.loader(keep=keep)
        backbone = weakref.ref(loader.load(whole).backbone)
        gc.collect()
        assert (backbone() is not None) == bool(keep)
    loader.load(shelf.create("other", seed=4))
    gc.collect()
    assert backbone() is None


def test_threads_that_ask_at_once_get_one_backbone(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create(architecture="small_cnn", shape=ImageInput(size=28, channels=1)))
    deltas = [shelf.delta(whole, bias(number)) for number in range(4)]
    loader = shelf.loader()
    start = threading.Barrier(4)
    loaded: list[Network] = []

    def load(version: Version) -> None:
        start.wait(timeout=10)
        loaded.append(loader.load(version))

    threads = [threading.Thread(target=load, args=(version,)) for version in deltas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert len(loaded) == 4
    assert len({id(network.backbone) for network in loaded}) == 1


def test_a_projection_is_drawn_once(shelf: Shelf) -> None:
    first = shelf.create()
    with shelf.database.sessions.begin() as session:
        session.execute(update(Version).values(spec={**first.spec, "projection": 500}))
    first = shelf.registry.version_by_id(first.id)
    loader = shelf.loader()
    one, two = loader.load(first), loader.load(shelf.delta(first, bias(1)))
    assert one.projection is two.projection
    assert two(torch.ones(1, 4)).shape == (1, 2)


def test_a_loaded_copy_can_be_changed_without_changing_what_is_shared(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta = shelf.delta(whole, seen)
    loader = shelf.loader()
    networks = loader.load(whole), loader.load(delta)
    before = [to_bytes(network.state_dict()) for network in networks]

    moved_all(copy.deepcopy(networks[1]))

    assert [to_bytes(network.state_dict()) for network in networks] == before


def test_a_delta_without_its_base_says_which_and_what_to_do(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta = shelf.delta(whole, bias(1))
    shelf.file(whole).unlink()
    with pytest.raises(MissingBase, match=r"version 3 .*changes of version 2.* missing.*from a copy, or roll back"):
        shelf.loader().load(delta)


def test_a_delta_over_a_damaged_base_is_not_loaded(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta = shelf.delta(whole, bias(1))
    shelf.corrupt(whole)
    with pytest.raises(MissingBase, match="digest"):
        shelf.loader().load(delta)


def test_a_damaged_or_missing_delta_is_not_loaded(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta = shelf.delta(whole, bias(1))
    shelf.corrupt(delta)
    with pytest.raises(Corrupt, match="digest"):
        shelf.loader().load(delta)
    shelf.file(delta).unlink()
    with pytest.raises(MissingWeights):
        shelf.loader().load(delta)


def test_a_delta_of_a_delta_and_one_over_another_network_are_refused(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    delta, child = shelf.delta(whole, bias(1)), shelf.delta(whole, bias(2))
    child.base_id = delta.id
    with pytest.raises(Corrupt, match="no whole version"):
        shelf.loader().load(child)
    child.base_id = shelf.create("other", architecture="linear").id
    with pytest.raises(Corrupt, match="another network"):
        shelf.loader().load(child)


def test_a_model_s_first_version_may_stand_on_another_model_s_backbone(shelf: Shelf) -> None:
    whole = shelf.whole(shelf.create())
    first = shelf.create("sibling")
    first.base_id = whole.id
    loader = shelf.loader()
    network = loader.load(first)
    assert network.backbone is loader.load(whole).backbone
    assert torch.equal(network.head.weight, loader.load(shelf.create("plain")).head.weight)
    assert loader.delta(network, first).base_id == whole.id


def test_a_version_whose_record_names_no_file_is_missing(shelf: Shelf) -> None:
    first = shelf.create()
    first.files = FileState.PRESENT
    with pytest.raises(MissingWeights):
        shelf.loader().load(first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_cuda_a_version_takes_the_memory_that_another_left_and_what_was_recorded_there(shelf: Shelf) -> None:
    first = shelf.whole(shelf.create())
    second = shelf.whole(first)
    loader = shelf.loader(device="cuda")
    executions = Executions(torch.device("cuda"), Options())
    items = torch.rand(5, 4)
    found, memory, graphs = [], [], []
    for version in (first, second):
        network = loader.load(version)
        assert all(one.is_cuda for one in network.parameters())
        seat = loader.seat_of(network.backbone)
        assert seat is not None
        found.append(executions.of(network, seat)(items, preprocessor_for(network.spec).normalised).cpu())
        memory.append({one.data_ptr() for one in network.backbone.parameters()})
        graphs.append(seat.made[PLAIN][1])
        expected = shelf.loader().load(version)
        assert all(torch.equal(one.cpu(), expected.state_dict()[name]) for name, one in network.state_dict().items())
        with torch.inference_mode():
            torch.testing.assert_close(found[-1], expected.raw_features(items), atol=1e-2, rtol=1e-2)
        del network, seat
        gc.collect()
    assert memory[0] == memory[1]
    assert graphs[0] is graphs[1]
    assert not torch.equal(*found)


def test_a_whole_version_is_mapped_and_another_s_numbers_are_its_own(shelf: Shelf) -> None:
    first = shelf.whole(shelf.create())
    second = shelf.whole(first)
    loader = shelf.loader()

    one, other = loader.load(first), loader.load(second)

    for before, after in zip(one.backbone.parameters(), other.backbone.parameters(), strict=True):
        assert torch.equal(before + 0.01, after)


def test_the_form_of_a_network_is_built_once_for_all_its_versions(shelf: Shelf) -> None:
    first = shelf.whole(shelf.create())
    second = shelf.whole(first)
    loader = shelf.loader()

    networks = [loader.load(version) for version in (first, second)]

    assert len(loader._skeletons) == 1
    assert networks[0].backbone is not networks[1].backbone
