"""Which weights learn, by name, and the catalog of choices.

Called by the learner. Works on any module: what a head is and what a block is follows from how the module is built.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from worker.learning.failure import LearningFailed
from worker.learning.settings import LearnerSettings

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_ROWS = (nn.Sequential, nn.ModuleList)


def head_names(network: nn.Module) -> frozenset[str]:
    """Names of the parameters of the head: the child `head`, or the last block of a network without one."""
    if isinstance(getattr(network, "head", None), nn.Module):
        return frozenset(name for name, _ in network.named_parameters() if name.startswith("head."))
    every = blocks(network)
    return frozenset(every[-1]) if every else frozenset()


def blocks(network: nn.Module, prefix: str = "") -> list[list[str]]:
    """Cut a network into blocks, each a list of parameters' names, in the order in which its modules are registered.

    Containers are opened: the network itself, plain `Sequential` and `ModuleList`, and modules that hold a row of
    like composite modules (a transformer's encoder). What stands in them is a block: a layer with weights, or a
    composite module as a whole (`layer4.1` of a ResNet, `features.17` of a MobileNet). What has only vectors of
    scales and biases belongs to the block before it, as does normalization to the layer it follows.
    """
    found: list[list[str]] = []
    for names, weighty in _units(network, prefix, opened=True):
        if weighty or not found:
            found.append(names)
        else:
            found[-1] += names
    return found


def _units(module: nn.Module, prefix: str, *, opened: bool = False) -> Iterator[tuple[list[str], bool]]:
    if not opened and not _opens(module):
        parameters = [(prefix + name, parameter) for name, parameter in module.named_parameters()]
        if parameters:
            yield [name for name, _ in parameters], any(parameter.dim() > 1 for _, parameter in parameters)
        return
    own = [(prefix + name, parameter) for name, parameter in module.named_parameters(recurse=False)]
    if own:
        yield [name for name, _ in own], any(parameter.dim() > 1 for _, parameter in own)
    for name, child in module.named_children():
        yield from _units(child, f"{prefix}{name}.")


def _opens(module: nn.Module) -> bool:
    return type(module) in _ROWS or any(_is_row(one) for one in (module, *module.children()))


def _is_row(module: nn.Module) -> bool:
    """Whether this is a sequence with two or more composite modules of one kind."""
    if not isinstance(module, _ROWS):
        return False
    kinds = [type(child) for child in module.children() if any(child.children()) and not isinstance(child, _ROWS)]
    return len(set(kinds)) < len(kinds)


def _everything(network: nn.Module, settings: LearnerSettings) -> set[str]:
    return {name for name, _ in network.named_parameters()}


def _head(network: nn.Module, settings: LearnerSettings) -> set[str]:
    if not all(isinstance(getattr(network, name, None), nn.Module) for name in ("backbone", "head")):
        raise LearningFailed(
            "trainable: to learn the head alone, the network needs a `backbone` and a `head`; choose trainable 'all'."
        )
    return set(head_names(network))


def _last_blocks(network: nn.Module, settings: LearnerSettings) -> set[str]:
    head = head_names(network)
    backbone = getattr(network, "backbone", None)
    every = blocks(backbone, "backbone.") if isinstance(backbone, nn.Module) else blocks(network)
    shared = [block for block in every if not head.intersection(block)]
    return set(head).union(*shared[-settings.blocks :])


def _bitfit(network: nn.Module, settings: LearnerSettings) -> set[str]:
    scales = {
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        if isinstance(module, _NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
    biases = {name for name, _ in network.named_parameters() if name.endswith("bias")}
    return scales | biases | head_names(network)


TRAINABLE: Mapping[str, Callable[[nn.Module, LearnerSettings], set[str]]] = MappingProxyType(
    {
        "all": _everything,
        "head": _head,
        "last_blocks": _last_blocks,  # the last `blocks` blocks of the backbone, and the head
        "bitfit": _bitfit,  # biases, scales of normalization, and the head (Ben Zaken et al. 2022, arXiv 2106.10199)
    }
)


def set_trainable(network: nn.Module, settings: LearnerSettings) -> Callable[[], None]:
    """Let only the chosen parameters learn, and give what puts the network's own choice back.

    Parameters that the network itself holds still stay still. Raises LearningFailed when nothing is left.
    """
    if settings.trainable not in TRAINABLE:
        raise LearningFailed(f"There is no trainable {settings.trainable!r}; choose one of {', '.join(TRAINABLE)}.")
    chosen = TRAINABLE[settings.trainable](network, settings)
    before = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    if not any(learns and name in chosen for name, learns in before.items()):
        raise LearningFailed(
            f"trainable: with {settings.trainable!r} no weight of this network may learn; choose another `trainable`, "
            "or let its parameters require gradients."
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(before[name] and name in chosen)

    def put_back() -> None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(before[name])

    return put_back
