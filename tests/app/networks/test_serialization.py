"""Nothing is loaded that is not exactly what the network needs, and nothing half."""

import json

import pytest
import safetensors.torch
import torch

from app.errors import Corrupt
from app.networks import serialization
from app.networks.catalog import build
from app.networks.network import Network
from app.networks.serialization import backbone_digest, from_bytes, load_weights, to_bytes
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput


def network(labels: tuple[int, ...] = (2, 0), seed: int = 0) -> Network:
    return build(NetworkSpec("mlp", FeaturesInput(size=4), labels, seed=seed), {})


def with_header(header: bytes, rest: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + rest


def refused(data: bytes, match: str) -> None:
    """The network must refuse the bytes and stay as it was."""
    target = network(seed=1)
    before = to_bytes(target.state_dict())
    with pytest.raises(Corrupt, match=match):
        load_weights(target, data)
    assert to_bytes(target.state_dict()) == before


def changed(**tensors: torch.Tensor | None) -> bytes:
    state = {**network().state_dict(), **{name.replace("__", "."): value for name, value in tensors.items()}}
    return to_bytes({name: value for name, value in state.items() if value is not None})


def test_saved_and_loaded_is_bit_equal_also_without_labels() -> None:
    for labels in ((), (1,), (3, 1, 2)):
        source, target = network(labels), network(labels, seed=9)
        load_weights(target, to_bytes(source.state_dict()))
        assert to_bytes(target.state_dict()) == to_bytes(source.state_dict())
        assert torch.equal(source(torch.ones(2, 4)), target(torch.ones(2, 4)))


def test_bytes_are_the_same_whatever_the_order_of_names() -> None:
    state = network().state_dict()
    assert to_bytes(state) == to_bytes(dict(reversed(state.items())))


def test_tensors_that_share_memory_or_are_not_contiguous_can_be_saved() -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    back = from_bytes(to_bytes({"a": whole, "b": whole, "c": whole.t(), "d": torch.tensor(3)}))
    assert torch.equal(back["c"], whole.t())
    assert int(back["d"]) == 3


def test_bytes_that_are_no_safetensors_are_corrupt() -> None:
    for data in (b"", b"short", b"\x80\x04pickle" * 10, with_header(b"not json"), with_header(b"[1]"), b"\xff" * 100):
        with pytest.raises(Corrupt):
            from_bytes(data)


def test_a_header_above_one_mebibyte_is_refused() -> None:
    with pytest.raises(Corrupt, match="header claims"):
        from_bytes(with_header(b"{" + b" " * (1 << 20) + b"}"))


def test_a_key_that_stands_twice_is_refused() -> None:
    entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    from_bytes(with_header(f"{{{entry}}}".encode(), b"\0" * 4))
    with pytest.raises(Corrupt, match="twice"):
        from_bytes(with_header(f"{{{entry},{entry}}}".encode(), b"\0" * 4))


def test_offsets_outside_the_data_are_refused() -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    for rest in (b"", b"\0" * 15, b"\0" * 17):
        with pytest.raises(Corrupt):
            from_bytes(with_header(header, rest))


def test_no_flipped_byte_of_the_header_raises_anything_but_corrupt() -> None:
    data = bytearray(changed())
    length = int.from_bytes(data[:8], "little")
    for at in range(0, 8 + length, 3):
        flipped = data.copy()
        flipped[at] ^= 0x55
        target = network()
        try:
            load_weights(target, bytes(flipped))
        except Corrupt:
            continue


def test_missing_and_foreign_keys_are_refused_by_name() -> None:
    refused(changed(head__bias=None), "missing head.bias")
    refused(changed(extra=torch.zeros(1)), "not expected extra")


def test_wrong_shapes_and_dtypes_are_refused() -> None:
    refused(changed(head__bias=torch.zeros(3)), "head.bias")
    refused(changed(head__bias=torch.zeros(2, dtype=torch.float64)), "head.bias")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    refused(changed(head__bias=torch.tensor([0.0, bad])), "not finite")


def test_the_digest_is_of_the_backbone_alone() -> None:
    one, other = network((1,)), network((4, 5))
    assert backbone_digest(one) == backbone_digest(other)

    with torch.no_grad():
        next(one.backbone.parameters())[0] += 1e-6
    assert backbone_digest(one) != backbone_digest(other)


def test_standardisation_belongs_to_the_digest() -> None:
    one = network()
    before = backbone_digest(one)
    one.backbone.get_submodule("standardize").observe(torch.randn(5, 4))  # type: ignore[operator]
    assert backbone_digest(one) != before


def test_the_library_reads_the_same_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "_CHUNK", 64)
    kinds = [torch.int64, torch.float64, torch.float32, torch.int32, torch.bfloat16, torch.float16, torch.int16]
    kinds += [torch.int8, torch.uint8, torch.bool]
    numbers = torch.arange(60).reshape(3, 4, 5)
    tensors = {f"{place}.{kind}": numbers.to(kind, copy=True) for place in ("ü", "a", "b") for kind in kinds}
    tensors |= {"none": torch.empty(0, 3), "scalar": torch.tensor(2.5), "turned": numbers.float().transpose(0, 2)}
    pauses: list[None] = []

    data = to_bytes(tensors, lambda: pauses.append(None))

    read = safetensors.torch.load(bytes(data))
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name], tensor)
    assert safetensors.torch.load(bytes(to_bytes({}))) == {}
    assert len(pauses) > len(tensors)
