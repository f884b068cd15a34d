"""The ways to run a backbone: which are worth a trial on a device, which of them work, and which is soonest.

Called by Executions. Knows nothing of versions or HTTP.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from app.log import get_logger
from app.networks.backbone import FAILURES
from app.networks.packing import blocked, cast, folded, packed
from app.networks.recording import Recording
from app.networks.serialization import Pause
from app.networks.straight import straight
from app.serving.cuda_graphs import Run

log = get_logger(__name__)

PLAIN = "plain"
RECORDED = "recorded"
BFLOAT16 = "bfloat16"

FEW = 4  # inputs from which a batch is run as one of many
ONE, MANY = 1, 16  # sizes that the ways are tried with
_ROUNDS = 3
_GAIN = 1.05  # how much sooner a way must be to be taken before the usual one: less is noise
_EXACT = 1e-4  # of the largest number: what another order of sums may move
_ROUGH = 5e-2  # the same for bfloat16, which keeps 8 bits of a number
_BELIEF = 0.05  # what bfloat16 may move a probability by; measured in docs/decisions/0021


@dataclass(frozen=True)
class Options:
    """What may be tried. `packing` costs the memory of two more copies of the convolutions' weights."""

    precision: str = "float32"
    packing: bool = True


def ways(
    network: nn.Module, inputs: Tensor, options: Options, recordings: dict[str, Recording | None]
) -> Mapping[str, Callable[[], Run]]:
    """Name the ways beside the plain one that are worth a trial, and how each is made.

    On the processor each is recorded, so that its passes need no lock of Python's, where that can be. Recordings are
    of the network's form, by way; what is not among them is put there, None where it cannot be recorded.
    """
    found: dict[str, Callable[[], nn.Module]] = {}
    halves = options.precision == BFLOAT16
    device = inputs.device.type
    convolutions = options.packing and any(isinstance(one, nn.Conv2d) for one in network.modules())
    if convolutions and device == "cuda" and halves:
        found[f"folded, {BFLOAT16}"] = partial(folded, network, inputs[:ONE], torch.bfloat16)
    if convolutions and device == "cpu":
        found["packed"] = partial(packed, network, inputs[:ONE])
        found["blocked"] = partial(blocked, network, inputs, batch=MANY)
        if halves:
            found[f"packed, {BFLOAT16}"] = partial(packed, network, inputs, torch.bfloat16, batch=MANY)
    if halves:
        found[BFLOAT16] = lambda: cast(network, torch.bfloat16)
    if device != "cpu":
        return found
    made: dict[str, Callable[[], Run]] = {
        name: partial(_freed, name, make, inputs, recordings) for name, make in found.items()
    }
    if RECORDED not in recordings:
        recordings[RECORDED] = _recording(RECORDED, network, inputs)
    recording = recordings[RECORDED]
    if recording is not None:
        made[RECORDED] = partial(recording.of, network)
    run = straight(network)
    if run is not None:
        made["straight"] = lambda: run
    return made


def _freed(name: str, make: Callable[[], nn.Module], inputs: Tensor, recordings: dict[str, Recording | None]) -> Run:
    """Make a way and record it; as it is where that cannot be."""
    network = make()
    if name not in recordings:
        recordings[name] = _recording(name, network, inputs)
    recording = recordings[name]
    return network if recording is None else recording.of(network)


def _recording(name: str, network: nn.Module, inputs: Tensor) -> Recording | None:
    try:
        return Recording(network, inputs)
    except FAILURES as error:
        log.info("pass not recorded", way=name, error=f"{type(error).__name__}: {error}"[:200])
        return None


def working(name: str, make: Callable[[], Run], inputs: Tensor, plain: Tensor, pause: Pause) -> Run | None:
    """Make a way and run it; None when it cannot be made, or gives other features than the plain one."""
    try:
        run = make()
        near = True
        for count in sorted({ONE, FEW, len(inputs)}):
            pause()
            near = near and _near(plain[:count], run(inputs[:count]), _ROUGH if BFLOAT16 in name else _EXACT)
    except FAILURES as error:  # a step that cannot be rewritten, an old processor
        log.info("backbone not prepared", way=name, error=f"{type(error).__name__}: {error}"[:200])
        return None
    if not near:
        log.warning("backbone not prepared", way=name, error="its features are not near")
    return run if near else None


def soonest(runs: Mapping[str, Run], inputs: Tensor, pause: Pause) -> str:
    """Time each in turn, and again; the recorded one, or the plain one, unless another is sooner by more than noise."""
    best = dict.fromkeys(runs, math.inf)
    # On the processor not what others on this machine take in between.
    clock = time.thread_time if inputs.device.type == "cpu" else time.perf_counter
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            pause()
            started = clock()
            run(inputs)
            best[name] = min(best[name], clock() - started)
    name = min(best, key=lambda one: best[one])
    usual = RECORDED if RECORDED in runs else PLAIN
    return name if best[name] * _GAIN < best[usual] else usual


def same_answers(plain: Tensor, own: Tensor, *, rough: bool) -> bool:
    """Say whether logits, (batch, labels), are those of the plain way.

    Within 1e-4 of the largest; or, where bfloat16 made them, probabilities within 0.05 and the same label first
    wherever the first two are more than that apart.
    """
    return _near(plain, own, _EXACT) or (rough and _alike(plain, own))


def _near(one: Tensor, other: Tensor, share: float) -> bool:
    bound = share * max(1.0, float(one.abs().max()))
    return one.shape == other.shape and float((one - other.float()).abs().max()) <= bound


def _alike(plain: Tensor, own: Tensor) -> bool:
    """Compare logits as the beliefs that clients see."""
    beliefs, moved = plain.softmax(1), own.softmax(1)
    best = beliefs.topk(min(2, beliefs.shape[1]), dim=1).values  # (batch, 1 or 2)
    sure = best[:, 0] - best[:, -1] > 2 * _BELIEF
    near = float((beliefs - moved).abs().max()) <= _BELIEF
    return near and not bool((sure & (beliefs.argmax(1) != moved.argmax(1))).any())
