"""Which weights learn, on networks as people build them."""

import pytest
import torch
from torch import nn

from app.networks.catalog import build
from app.networks.network import Network
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput
from worker.learning.failure import LearningFailed
from worker.learning.settings import LearnerSettings
from worker.learning.trainable import blocks, head_names, set_trainable


def network(architecture: str) -> Network:
    shape = FeaturesInput(size=5) if architecture == "mlp" else ImageInput(size=224 if "vit" in architecture else 32)
    return build(NetworkSpec(architecture=architecture, input=shape, labels=(1, 2), seed=0), {})


def learning(module: nn.Module, trainable: str, count: int = 1) -> set[str]:
    """Names of what learns, cut to modules."""
    set_trainable(module, LearnerSettings(trainable=trainable, blocks=count))  # type: ignore[arg-type]
    return {name.rpartition(".")[0] for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("architecture", "count", "last", "first_left"),
    [
        ("resnet18", 9, "backbone.layer4.1.", "backbone.layer4.0."),
        ("mobilenet_v2", 19, "backbone.features.18.", "backbone.features.17."),
        ("small_cnn", 4, "backbone.13.", "backbone.8."),
        ("mlp", 2, "backbone.out.", "backbone.hidden."),
        ("regnet_y_400mf", 17, "backbone.trunk_output.block4.block4-5.", "backbone.trunk_output.block4.block4-4."),
    ],
)
def test_the_last_block_is_the_last_one_a_person_would_name(
    architecture: str, count: int, last: str, first_left: str
) -> None:
    module = network(architecture)
    assert len(blocks(module.backbone)) == count
    names = learning(module, "last_blocks")
    assert {"head"} < names
    if architecture == "small_cnn":  # the linear layer and the normalization after it
        assert names == {"head", "backbone.13", "backbone.14"}
    else:
        assert all(name == "head" or f"{name}.".startswith(last) for name in names)
    assert all(not f"{name}.".startswith(first_left) for name in names)
    assert sorted(name for block in blocks(module.backbone) for name in block) == sorted(
        name for name, _ in module.backbone.named_parameters()
    )


def test_a_transformer_is_cut_into_its_layers() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 8))
            self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(3))
            self.norm = nn.LayerNorm(8)

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.encoder = Encoder()

    cut = blocks(Text())
    assert [block[0].rsplit(".", 1)[0] for block in cut[2:]] == [f"encoder.layers.{i}.self_attn" for i in range(3)]
    assert cut[-1][-2:] == ["encoder.norm.weight", "encoder.norm.bias"]


def test_a_plain_sequence_has_its_last_layer_for_a_head() -> None:
    plain = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert head_names(plain) == {"5.weight", "5.bias"}
    assert learning(plain, "last_blocks") == {"3", "5"}
    assert head_names(nn.Linear(3, 2)) == {"weight", "bias"}


def test_more_blocks_than_there_are_is_all_of_them() -> None:
    module = network("small_cnn")
    assert learning(module, "last_blocks", 50) == learning(network("small_cnn"), "all")


def test_bitfit_is_biases_and_scales_of_normalization_and_the_head() -> None:
    module = network("small_cnn")
    set_trainable(module, LearnerSettings(trainable="bitfit"))
    names = {name for name, p in module.named_parameters() if p.requires_grad}
    assert names == {
        *(f"backbone.{layer}.{kind}" for layer in (1, 5, 9, 14) for kind in ("weight", "bias")),
        *("backbone.13.bias", "head.weight", "head.bias"),
    }


def test_what_the_network_holds_still_stays_still_and_its_own_choice_comes_back() -> None:
    module = network("small_cnn")
    module.backbone[0].weight.requires_grad_(False)  # type: ignore[index]
    put_back = set_trainable(module, LearnerSettings(trainable="all"))
    assert not module.backbone[0].weight.requires_grad  # type: ignore[index]
    put_back()
    put_back = set_trainable(module, LearnerSettings(trainable="head"))
    put_back()
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == ["backbone.0.weight"]


def test_a_choice_that_leaves_nothing_to_learn_is_refused_with_a_remedy() -> None:
    module = network("mlp")
    module.head.requires_grad_(False)
    with pytest.raises(LearningFailed, match="choose another `trainable`"):
        set_trainable(module, LearnerSettings(trainable="head"))
    with pytest.raises(LearningFailed, match="choose one of all, head"):
        set_trainable(module, LearnerSettings(trainable="hope"))  # type: ignore[arg-type]
