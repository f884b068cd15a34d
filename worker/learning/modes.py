"""A network that answers for a moment while it learns: eval mode, and back, each layer to the mode it had.

Called by what judges between steps. Walking a small network, as `eval` and `train` do, costs as much as a layer of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


@contextmanager
def answering(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules, the network itself first, into eval mode for the length of the block.

    Where one has a `train` of its own, which may do more than keep the mode in mind, the network is asked by `eval`,
    and stays in that mode afterwards.
    """
    if any(type(module).train is not nn.Module.train for module in modules):
        modules[0].eval()
        yield
        return
    learning = [module for module in modules if module.training]
    for module in learning:
        module.training = False
    try:
        yield
    finally:
        for module in learning:
            module.training = True
