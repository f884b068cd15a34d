"""Weights that others trained go into the backbone whole, or not at all."""

import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from app.errors import InvalidNetwork
from app.networks.catalog import build, skeleton
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.pretrained import base_weights_from, read_weights_file
from app.networks.serialization import to_bytes
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
DIGEST = "sha256:" + "ab" * 32


def network_with(tensors: Mapping[str, Tensor], architecture: str, channels: int = 3, size: int = 64) -> Network:
    shape = ImageInput(size=size, channels=3 if channels == 3 else 1)
    spec = NetworkSpec(architecture, shape, (4,), weights=DIGEST)
    return build(spec, {"resnet20": f"{__name__}:resnet20"}, {DIGEST: tensors}.__getitem__)


def test_the_head_of_the_file_is_left_out_whatever_its_size() -> None:
    for classes in (1000, 7):
        source = torchvision.models.get_model("mobilenet_v3_small", num_classes=classes)
        network = network_with(source.state_dict(), "mobilenet_v3_small")

        loaded = network.backbone.state_dict()
        assert all(torch.equal(loaded[name], source.state_dict()[name]) for name in loaded)
        assert network.head.weight.shape == (1, 1024)


def test_an_exported_version_can_be_where_another_model_starts() -> None:
    shape = ImageInput(size=28, channels=1)
    exported = build(NetworkSpec("small_cnn", shape, (1, 2), seed=8), {})
    spec = NetworkSpec("small_cnn", shape, weights=DIGEST)
    begun = build(spec, {}, base_weights_from(lambda _: to_bytes(exported.state_dict()), download=False))
    assert to_bytes(begun.backbone.state_dict()) == to_bytes(exported.backbone.state_dict())


def test_a_colour_stem_added_up_is_the_grey_channel_repeated() -> None:
    source = torchvision.models.get_model("mobilenet_v3_small")
    colour = network_with(source.state_dict(), "mobilenet_v3_small")
    grey = network_with(source.state_dict(), "mobilenet_v3_small", channels=1)
    inputs = torch.randn(3, 1, 64, 64)

    torch.testing.assert_close(grey.features(inputs), colour.features(inputs.expand(-1, 3, -1, -1)))


def test_what_does_not_fit_is_listed_by_key() -> None:
    state = torchvision.models.get_model("mobilenet_v3_small").state_dict()
    state["features.0.0.weight"] = torch.zeros(16, 3, 5, 5)
    state["strange"] = torch.zeros(1)
    del state["features.1.block.0.0.weight"]

    with pytest.raises(InvalidNetwork) as caught:
        network_with(state, "mobilenet_v3_small")

    for words in (
        "missing features.1.block.0.0.weight",
        "not expected strange",
        "features.0.0.weight is (16, 3, 5, 5)",
    ):
        assert words in str(caught.value)


def test_numbers_that_are_not_finite_are_refused() -> None:
    state = torchvision.models.get_model("mobilenet_v3_small").state_dict()
    state["features.0.0.weight"][0] = float("nan")
    with pytest.raises(InvalidNetwork, match="not finite"):
        network_with(state, "mobilenet_v3_small")


def test_half_precision_and_missing_counts_of_batches_are_taken() -> None:
    state = torchvision.models.get_model("mobilenet_v3_small").state_dict()
    old = {name: value.half() for name, value in state.items() if not name.endswith("num_batches_tracked")}
    network = network_with(old, "mobilenet_v3_small")
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32, torch.int64}


def test_named_weights_that_nobody_can_read_are_an_error() -> None:
    spec = NetworkSpec("small_cnn", ImageInput(size=28), weights=DIGEST)
    with pytest.raises(InvalidNetwork, match="cannot be read here"):
        build(spec, {})
    assert skeleton(spec, {}).width == 128


@pytest.mark.skipif(not (DATA / "mobilenet_v2_imagenet.pth").exists(), reason="needs ../shared/data")
def test_mobilenet_v2_s_real_weights_know_two_breeds_of_dog() -> None:
    tensors = read_weights_file(DATA / "mobilenet_v2_imagenet.pth")
    network = network_with(tensors, "mobilenet_v2", size=224)
    preprocessor = preprocessor_for(network.spec)
    with tarfile.open(DATA / "imagenet_extras.tar") as archive:
        names = archive.getnames()

        def content(end: str) -> bytes:
            file = archive.extractfile(next(name for name in names if name.endswith(end)))
            assert file is not None
            return file.read()

        classes = content("imagenet_classes.txt").decode().splitlines()
        items = [preprocessor.decode(content(name)) for name in ("samoyed.jpg", "husky.jpg")]

    with torch.no_grad():
        features = network.features(preprocessor.batch([*items, items[0].flip(2)]))  # (3, 1280)
        logits = nn.functional.linear(features, tensors["classifier.1.weight"], tensors["classifier.1.bias"])
    samoyed, husky, _ = logits.argmax(1).tolist()

    assert "samoyed" in classes[samoyed].lower()
    assert 151 <= husky <= 275  # ImageNet's dogs and wolves
    assert husky != samoyed
    likeness = nn.functional.cosine_similarity(features[:1], features[1:])
    assert likeness[1] > likeness[0]  # its own mirror picture is nearer than the other dog


class Block(nn.Module):
    """The CIFAR block without weights in its shortcut: pixels are skipped, channels padded with zeros."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.padding = (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        stride = self.conv1.stride[0]
        short = nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, self.padding, self.padding))
        out: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (out + short).relu()


class Resnet20(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def resnet20(num_classes: int) -> nn.Module:
    return Resnet20(num_classes)


@pytest.mark.skipif(not (DATA / "cifar10_resnet20-12fca82f.th").exists(), reason="needs ../shared/data")
def test_a_user_s_own_network_takes_published_weights() -> None:
    tensors = read_weights_file(DATA / "cifar10_resnet20-12fca82f.th")
    network = network_with(tensors, "resnet20", size=32)
    assert network.width == 64
    assert torch.equal(network.backbone.state_dict()["conv1.weight"], tensors["conv1.weight"])
