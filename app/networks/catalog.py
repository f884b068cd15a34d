"""Every architecture by name, and how a spec becomes a network.

A new architecture is one file and one row here. Called by server, worker and check alike; knows nothing of files:
base weights come through a function.
"""

import threading
from collections.abc import Callable, Mapping

import torch

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone
from app.networks.base_weights import BaseWeights, load_base
from app.networks.head import Head
from app.networks.linear import linear
from app.networks.mlp import mlp
from app.networks.network import Network
from app.networks.projection import Projection
from app.networks.skeleton import Skeleton, hollowed, is_whole_state
from app.networks.small_cnn import small_cnn
from app.networks.spec import NetworkSpec
from app.networks.torchvision_classifier import NAMES, torchvision_classifier
from app.networks.user_network import user_network
from app.recipe import FeaturesInput, ImageInput

CATALOG: dict[str, Callable[[NetworkSpec], Backbone]] = {
    "mlp": mlp,
    "linear": linear,
    "small_cnn": small_cnn,
    **{name: torchvision_classifier(name) for name in NAMES},
}

# torch's generator is one for the whole process, and so is what keeps two builds from drawing from it at once.
_DRAWING = threading.Lock()


def default_architecture(shape: ImageInput | FeaturesInput) -> str:
    """Choose for a user who named none: what learns on two processor cores."""
    if isinstance(shape, FeaturesInput):
        return "mlp"
    return "small_cnn" if shape.size <= 64 else "mobilenet_v3_small"


def build(spec: NetworkSpec, builders: Mapping[str, str], base_weights: BaseWeights | None = None) -> Network:
    """Make the network of a spec as it is before any learning, in eval mode: the same for the same spec.

    `builders` are the user's own, name → "module:function". `base_weights` is asked for "sha256:<hex>" or
    "imagenet:<architecture>" when the spec names weights; without it that is an error. Torch's global random
    state is left as it was. Raises InvalidNetwork, and what `base_weights` raises.
    """
    return with_head(spec, build_backbone(spec, builders, base_weights))


def build_backbone(spec: NetworkSpec, builders: Mapping[str, str], base_weights: BaseWeights | None = None) -> Backbone:
    """Make the backbone alone, as `build` does: the same for each spec of one architecture, input, weights and seed."""
    base = None
    if spec.weights is not None:
        if base_weights is None:
            raise InvalidNetwork(f"The weights {spec.weights!r} cannot be read here: nothing was given to read them.")
        source = f"imagenet:{spec.architecture}" if spec.weights == "imagenet" else spec.weights
        base = base_weights(source)
    backbone = bare_backbone(spec, builders)
    if base is not None:
        load_base(backbone, base, str(spec.weights))
    return backbone


def skeleton(spec: NetworkSpec, builders: Mapping[str, str]) -> Skeleton:
    """Make the backbone of a spec without its numbers, for a version's own; no base weights are read.

    The catalog's own are built without memory, so nothing is drawn. A user's builder may do anything with its
    numbers, so it is called as ever, and they are let go; so it is with the few that compute their own sizes.
    """
    formed = None if spec.architecture in builders else _formed(spec)
    return hollowed(bare_backbone(spec, builders) if formed is None else formed)


def _formed(spec: NetworkSpec) -> Backbone | None:
    """Build a backbone of the catalog on the meta device; None where that would lose something."""
    try:
        with torch.device("meta"):
            formed = bare_backbone(spec, {})
    except NotImplementedError:  # what torch raises where a number is asked of a tensor without any
        return None
    return formed if is_whole_state(formed.module) else None


def with_head(spec: NetworkSpec, backbone: Backbone, projection: Projection | None = None) -> Network:
    """Put a fresh head of the spec on a backbone, in eval mode."""
    head = Head(spec.projection or backbone.width, spec.labels, spec.seed)
    return Network(spec, backbone.module, head, backbone.width, projection).eval()


def bare_backbone(spec: NetworkSpec, builders: Mapping[str, str]) -> Backbone:
    """Make the backbone without reading base weights."""
    if spec.architecture in builders:
        construct = user_network(builders[spec.architecture])
    elif spec.architecture in CATALOG:
        construct = CATALOG[spec.architecture]
    else:
        raise InvalidNetwork(
            f"There is no architecture {spec.architecture!r}. Choose one of {', '.join([*builders, *CATALOG])}; "
            "the setting PERENNIAL_BUILDERS adds your own."
        )
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        return construct(spec)
