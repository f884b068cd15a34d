"""Versions as networks, for the server that answers with them and for the worker that learns from them.

Each process makes one loader. Networks on one backbone share its module, whatever model they are of: a version that
changes only the head costs its head. So what is given is not to be changed; who trains, copies it first. Reads files
through the weight store, which verifies them; knows nothing of HTTP, of what is live, or of training.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn

from app.errors import Corrupt, MissingBase, MissingWeights, PerennialError
from app.log import get_logger
from app.networks.backbone import Backbone
from app.networks.base_weights import BaseWeights
from app.networks.buffer_pool import BufferPool, Seat
from app.networks.catalog import build_backbone, skeleton, with_head
from app.networks.delta import Tensors, apply_delta, delta_of, headed
from app.networks.delta import moved as moved_from
from app.networks.network import Network
from app.networks.projection import Projection
from app.networks.serialization import BACKBONE, HEAD, Pause, from_bytes, go_on, mapped, tensors_digest
from app.networks.skeleton import Skeleton
from app.networks.spec import NetworkSpec
from app.networks.user_network import penalties_of
from app.storage.registry import ModelRegistry
from app.storage.states import ArtifactKind, FileState
from app.storage.tables import Version
from app.storage.weights import WeightStore

log = get_logger(__name__)

SKELETONS = 32
"""Forms of networks that are remembered, by last use."""

Key = tuple[str, ...]
"""What a backbone is made from: a spec, a version's file, or another backbone and the digest of what moved in it."""


@dataclass(frozen=True)
class Delta:
    """What a new version is saved as: the tensors of its weights file, and the version that they add to."""

    base_id: str
    tensors: dict[str, Tensor]


@dataclass
class _Loaded:
    """What is known of a backbone; it keeps alive what the backbone was made from."""

    key: Key
    width: int
    base: nn.Module | None = None
    digest: str | None = None


class VersionLoader:
    """Reads, verifies and puts together. Safe to call from several threads.

    A backbone stays loaded while some network holds it; beyond that the `keep` last used ones do.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        weights: WeightStore,
        builders: Mapping[str, str],
        base_weights: BaseWeights,
        *,
        device: torch.device | str = "cpu",
        keep: int = 0,
        buffers: int = 1,
        pause: Pause = go_on,
    ) -> None:
        """On an accelerator `buffers` sets of memory are held ready for backbones of each form.

        `pause` is called between the steps of reading and checking a file.
        """
        self._registry = registry
        self._weights = weights
        self._builders = builders
        self._base_weights = base_weights
        self._device = torch.device(device)
        self._keep = keep
        self._pause = pause
        self._pool = None if self._device.type == "cpu" else BufferPool(self._device, spare=buffers)
        self._skeletons: OrderedDict[Key, Skeleton] = OrderedDict()
        self._state = threading.Condition()
        self._making: set[Key] = set()
        self._modules: WeakValueDictionary[Key, nn.Module] = WeakValueDictionary()
        self._of_version: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()
        self._loaded: WeakKeyDictionary[nn.Module, _Loaded] = WeakKeyDictionary()
        self._seats: WeakKeyDictionary[nn.Module, Seat] = WeakKeyDictionary()
        self._projections: WeakValueDictionary[tuple[int, int, int], Projection] = WeakValueDictionary()
        self._kept: OrderedDict[nn.Module, None] = OrderedDict()

    def load(self, version: Version) -> Network:
        """Give the version's network in eval mode on the loader's device, its backbone shared: do not change it.

        Raises Corrupt, or its kinds MissingWeights and MissingBase, when its files are no good, InvalidNetwork when
        nothing here can build it.
        """
        spec = NetworkSpec.from_json(version.spec)
        if version.files == FileState.NONE:
            backbone = self._whole(version, spec)
            network = with_head(spec, backbone, self._projection(spec, backbone.width))
        elif version.base_id is not None:
            network = self._delta(version, spec)
        else:
            network = self._full(version, spec)
        network.head.to(self._device)
        with self._state:
            self._of_version[version.id] = network.backbone
        return network

    def backbone_of(self, version: Version) -> tuple[nn.Module, str]:
        """Give the version's backbone and the digest of its state; no file is read while the backbone is loaded."""
        with self._state:
            module = self._of_version.get(version.id)
        if module is None:
            module = self.load(version).backbone
        return module, self._digest(module)

    def seat_of(self, backbone: nn.Module) -> Seat | None:
        """Give the memory that a backbone lies in on an accelerator, with what was made for it; None elsewhere."""
        return self._seats.get(backbone)

    def untaught(self, spec: NetworkSpec) -> Network:
        """Give the network of a spec as it was before any learning, its backbone shared: do not change it."""
        backbone = self._built(spec)
        return with_head(spec, backbone, self._projection(spec, backbone.width))

    def own_penalties(self, spec: NetworkSpec) -> Mapping[str, Callable[..., Tensor]]:
        """Give the losses that the builder of the spec's network brings, by name; none for one of the catalog."""
        target = self._builders.get(spec.architecture)
        return {} if target is None else penalties_of(target)

    def delta(self, network: Network, parent: Version) -> Delta:
        """Give what a child of `parent` is saved as when it keeps the parent's backbone, or nearly.

        Its base is the parent, or the parent's own base: never a delta. Raises InvalidNetwork when the network's
        backbone is of another make, and what `load` raises.
        """
        base = self._base(parent)
        backbone = self._whole(base, NetworkSpec.from_json(base.spec))
        if network.backbone is backbone.module:  # nothing to compare in its hundreds of tensors
            return Delta(base.id, {f"{HEAD}{name}": tensor for name, tensor in network.head.state_dict().items()})
        state = {f"backbone.{name}": tensor for name, tensor in backbone.module.state_dict().items()}
        return Delta(base.id, delta_of(network.state_dict(), state))

    def learner_state(self, version: Version) -> dict[str, Tensor] | None:
        """Give what the learner left with the version; None when it left nothing, or nothing that can be used.

        Without it learning begins with a rested optimizer, which costs little; so it is no reason to stop.
        """
        artifact = self._registry.artifacts(version.id).get(ArtifactKind.LEARNER_STATE)
        if artifact is None:
            return None
        try:
            return from_bytes(self._weights.read(version.id, artifact))
        except Corrupt as error:
            log.warning("learner state not usable", version=version.number, error=str(error))
            return None

    def _delta(self, version: Version, spec: NetworkSpec) -> Network:
        data = self._read(version)
        backbone = self._whole(version, spec)

        def move(beside: Backbone, tensors: Tensors) -> Backbone:
            key = ("moved", *self._loaded[beside.module].key, tensors_digest(tensors))
            return self._shared(key, lambda: moved_from(beside, tensors), beside.module)

        return apply_delta(spec, backbone, data, move, self._projection(spec, backbone.width))

    def _base(self, version: Version) -> Version:
        """Give the version whose backbone this one stands on: itself, unless it has a base."""
        if version.base_id is None:
            return version
        try:
            base = self._registry.version_by_id(version.base_id)
        except PerennialError as error:
            raise MissingBase(version.number, version.base_id, None, str(error)) from error
        if base.base_id is not None:
            raise Corrupt(f"version {version.number}", f"its base, version {base.number}, is no whole version itself")
        return base

    def _whole(self, version: Version, spec: NetworkSpec) -> Backbone:
        """Give the backbone that the version stands on; its file is read only if it is not loaded."""
        base = self._base(version)
        of = spec if base is version else NetworkSpec.from_json(base.spec)
        if (of.architecture, of.input) != (spec.architecture, spec.input):
            raise Corrupt(f"version {version.number}", f"its base, version {base.number}, is another network")
        try:
            if base.files == FileState.NONE:
                return self._built(of)
            return self._shared(("version", base.id), lambda: self._filled(of, self._read(base)))
        except PerennialError as error:
            if base is version:
                raise
            raise MissingBase(version.number, base.id, base.number, str(error)) from error

    def _built(self, spec: NetworkSpec) -> Backbone:
        return self._shared(_built_key(spec), lambda: build_backbone(spec, self._builders, self._base_weights))

    def _full(self, version: Version, spec: NetworkSpec) -> Network:
        tensors = self._read(version)
        backbone = self._shared(("version", version.id), lambda: self._filled(spec, tensors))
        return headed(spec, backbone, tensors, self._projection(spec, backbone.width))

    def _filled(self, spec: NetworkSpec, tensors: Tensors) -> Backbone:
        """Give a backbone of what a file holds: on the CPU the mapped tensors themselves, elsewhere their copies."""
        form = self._skeleton(spec)
        form.require_fit(spec, tensors, self._pause)
        if self._pool is None:
            return form.filled(tensors)

        def make(buffers: Tensors) -> nn.Module:
            return form.filled(tensors, lambda name, _: buffers[name]).module

        own = {name: tensors[f"{BACKBONE}{name}"] for name in form.shapes}
        key = None if spec.architecture in self._builders else _built_key(spec)
        module, self._seats[module] = self._pool.seated(key, form.shapes, own, make)
        return Backbone(module, form.width)

    def _skeleton(self, spec: NetworkSpec) -> Skeleton:
        key = _built_key(spec)
        with self._state:
            found = self._skeletons.get(key)
            if found is not None:
                self._skeletons.move_to_end(key)
                return found
        made = skeleton(spec, self._builders)
        with self._state:
            self._skeletons[key] = made
            while len(self._skeletons) > SKELETONS:
                self._skeletons.popitem(last=False)
        return made

    def _read(self, version: Version) -> Tensors:
        artifact = self._registry.artifacts(version.id).get(ArtifactKind.WEIGHTS)
        if artifact is None:
            raise MissingWeights(f"the weights file of version {version.number}")
        with self._weights.verified(version.id, artifact, self._pause) as path:
            return mapped(path)

    def _shared(self, key: Key, make: Callable[[], Backbone], base: nn.Module | None = None) -> Backbone:
        """Give the backbone of that key, made if it is not loaded; two who ask at once make it once."""
        with self._state:
            self._state.wait_for(lambda: key not in self._making)
            module = self._modules.get(key)
            if module is not None:
                self._touch(module)
                return Backbone(module, self._loaded[module].width)
            self._making.add(key)
        try:
            made = make()
            module = made.module.to(self._device).eval()
            with self._state:
                self._modules[key] = module
                self._loaded[module] = _Loaded(key, made.width, base)
                self._touch(module)
            return Backbone(module, made.width)
        finally:
            with self._state:
                self._making.discard(key)
                self._state.notify_all()

    def _touch(self, module: nn.Module) -> None:
        if self._keep:
            self._kept[module] = None
            self._kept.move_to_end(module)
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)

    def _digest(self, module: nn.Module) -> str:
        about = self._loaded[module]
        if about.digest is None:
            about.digest = tensors_digest(module.state_dict(), self._pause)
        return about.digest

    def _projection(self, spec: NetworkSpec, width: int) -> Projection | None:
        """Give the spec's random layer, drawn once for all who use it; None when it has none."""
        if not spec.projection:
            return None
        key = (width, spec.projection, spec.seed)
        with self._state:
            found = self._projections.get(key)
            if found is None:
                found = self._projections[key] = Projection(*key).to(self._device).eval()
            return found


def _built_key(spec: NetworkSpec) -> Key:
    return ("built", spec.architecture, spec.input.model_dump_json(), spec.weights or "", str(spec.seed))
