"""The rows that rehearse: Split-MNIST online, seq-MNIST, P-MNIST20 and Split Fashion-MNIST.

Every network is the one of the published protocol, and so are the settings unless `chosen` says otherwise.
"""

from typing import Any

import torch
from experiences import class_pairs, permutations
from mlp import MLP, MNIST_STANDARD, accuracy
from pictures import Pictures, ready
from protocol import Figures, Protocol
from rehearsing import Rehearsing, rehearse


def split(
    pictures: Pictures,
    seed: int,
    *,
    hidden: tuple[int, ...],
    dropout: float = 0.0,
    standard: tuple[float, float] = (0.0, 1.0),
    **how: Any,
) -> Figures:
    """Five pairs of classes, one head for all, each picture once; asked for all ten classes in the end."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = MLP(*hidden, dropout=dropout, standard=standard)
    rehearse(network, class_pairs(pictures, generator), Rehearsing(**how), generator)
    return {"accuracy": accuracy(network, ready(pictures.test_inputs), pictures.test_targets)}


def permuted(pictures: Pictures, seed: int, *, hidden: tuple[int, ...], count: int, **how: Any) -> Figures:
    """All pictures, `count` times, each time with other pixels exchanged; the mean over all tests in the end."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = MLP(*hidden)
    experiences = permutations(pictures, count, generator)
    rehearse(network, experiences, Rehearsing(**how), generator)
    return {"accuracy": sum(accuracy(network, *experience.test()) for experience in experiences) / count}


_ONLINE = {"hidden": (512,), "dropout": 0.5, "lr": 0.1, "batch": 10, "memory": 1000, "replayed": 10, "balanced": True}
_ONLINE |= {"standard": MNIST_STANDARD}
_SEQ = {"hidden": (100, 100), "batch": 10}
_PERMUTED = {"hidden": (100, 100), "count": 20, "batch": 128}
_FASHION = {"hidden": (256, 256), "batch": 10, "balanced": True, "alpha": 1.0, "beta": 1.0, "averaging": 0.99}
_FASHION_CHOSEN: dict[int, dict[str, Any]] = {
    200: {"kind": "er_ace", "lr": 0.05, "replayed": 10, "shift": 1, "mirror": True, "review": 2000},
    500: {"kind": "der_pp", "lr": 0.05, "replayed": 64},
    1000: {"kind": "der_pp", "lr": 0.05, "replayed": 64},
}

PROTOCOLS = [
    Protocol(
        "split-mnist-online-er",
        "mnist",
        split,
        _ONLINE | {"averaging": 0.99},
        "92 (0.92)",
        91.5,
        grid={"lr": (0.05, 0.1), "averaging": (0.0, 0.99)},
        chosen="averaging: held out",
    ),
    Protocol(
        "split-mnist-online-er-ace",
        "mnist",
        split,
        _ONLINE | {"kind": "er_ace"},
        "",
        93.0,
        chosen="the row above; default weights",
    ),
    Protocol(
        "seq-mnist-er-200",
        "mnist",
        split,
        _SEQ | {"lr": 0.01, "memory": 200, "replayed": 10},
        "80.43 ± 1.89",
        80.43 - 1.89,
    ),
    Protocol(
        "seq-mnist-er-500",
        "mnist",
        split,
        _SEQ | {"lr": 0.1, "memory": 500, "replayed": 10},
        "86.12 ± 1.89",
        86.12 - 1.89,
    ),
    Protocol(
        "seq-mnist-derpp-200",
        "mnist",
        split,
        _SEQ | {"lr": 0.03, "memory": 200, "replayed": 128, "kind": "der_pp", "alpha": 0.2, "beta": 1.0},
        "85.61 ± 1.40",
        85.61 - 1.40,
    ),
    Protocol(
        "seq-mnist-derpp-500",
        "mnist",
        split,
        _SEQ | {"lr": 0.03, "memory": 500, "replayed": 10, "kind": "der_pp", "alpha": 1.0, "beta": 0.5},
        "91.00 ± 1.49",
        91.00 - 1.49,
    ),
    Protocol("p-mnist20-sgd", "mnist", permuted, _PERMUTED | {"lr": 0.2}, "40.70 ± 2.33", 40.70 - 2 * 2.33),
    Protocol(
        "p-mnist20-er-200",
        "mnist",
        permuted,
        _PERMUTED | {"lr": 0.2, "memory": 200, "replayed": 128},
        "72.37 ± 0.87",
        72.37 - 2 * 0.87,
    ),
    Protocol(
        "p-mnist20-derpp-200",
        "mnist",
        permuted,
        _PERMUTED | {"lr": 0.1, "memory": 200, "replayed": 128, "kind": "der_pp", "alpha": 1.0, "beta": 1.0},
        "83.58 ± 0.59",
        83.58 - 2 * 0.59,
    ),
    *(
        Protocol(
            f"split-fashion-rehearsal-{memory}",
            "fashion_mnist",
            split,
            _FASHION | _FASHION_CHOSEN[memory] | {"memory": memory},
            f"{reference} (ER with tricks; joint 84.47)",
            reference,
            above=True,
            grid={"kind": ("er_ace", "der_pp"), "lr": (0.05, 0.1), "replayed": (10, 64), "shift": (0, 1)},
            chosen="held out",
        )
        for memory, reference in ((200, 76.07), (500, 80.11), (1000, 82.46))
    ),
]
