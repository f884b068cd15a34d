"""How a backbone is run: as it stands, or rewritten for the device where that was tried, found equal, and sooner.

Made by the loader through `Executions`, one for each backbone and shared by the versions on it; called by Predictor.
The network itself is never touched: who judges and learns holds it as it was saved. Knows nothing of versions or HTTP.
"""

import copy
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import Tensor, nn

from app.log import get_logger
from app.networks.backbone import FAILURES, example
from app.networks.network import Network
from app.networks.packing import Cast, blocked, folded, packed
from app.networks.serialization import Pause, go_on
from app.serving.cuda_graphs import CudaGraphs, CudaLane, Run

log = get_logger(__name__)

PLAIN = "plain"
BFLOAT16 = "bfloat16"

FEW = 4  # inputs from which a batch is run as one of many
_ONE, _MANY = 1, 16  # sizes that the ways are tried with
_ROUNDS = 3
_GAIN = 1.05  # how much sooner a way must be to be taken: less is noise
_EXACT = 1e-4  # of the largest number: what another order of sums may move
_ROUGH = 5e-2  # the same for bfloat16, which keeps 8 bits of a number
_BELIEF = 0.05  # what bfloat16 may move a probability by; measured in docs/decisions/0021


@dataclass(frozen=True)
class Options:
    """What may be tried. `packing` costs the memory of two more copies of the convolutions' weights."""

    precision: str = "float32"
    packing: bool = True


@dataclass(frozen=True)
class _Chosen:
    """What runs a few inputs, and many; and the features of the same inputs, plain and by each way."""

    ways: tuple[str, str]
    few: Run
    many: Run
    tried: tuple[Tensor, ...] = ()

    def agrees(self, network: Network) -> bool:
        """Say whether a version on this backbone gives the answers that it gives without rewriting.

        Logits within 1e-4 of the largest; or, in bfloat16, probabilities within 0.05 and the same label first
        wherever the first two are more than that apart.
        """
        if not self.tried or not network.spec.labels:
            return True
        with torch.inference_mode():
            plain, *others = (network.head(network.fed(features)).float() for features in self.tried)
            rough = any(BFLOAT16 in way for way in self.ways)
            return all(_near(plain, own, _EXACT) or (rough and _alike(plain, own)) for own in others)


class _Ended(Exception):
    """The server stops, so the trial under way is given up."""


class Execution:
    """Runs one backbone: as it stands, until something else is chosen. Safe to call from several threads."""

    def __init__(self, backbone: nn.Module, device: torch.device, lane: CudaLane | None = None) -> None:
        """On CUDA `lane` is the device's, which all that run there share."""
        self._backbone = backbone  # held, so that nothing else gets its id while this is known by it
        self._device = device
        self._lane = lane or _lane(device)
        self.plain: Run = self.running(backbone)
        self._chosen = _Chosen((PLAIN, PLAIN), self.plain, self.plain)
        self.users: WeakSet[Network] = WeakSet()  # versions on this backbone that run by it

    @property
    def ways(self) -> tuple[str, str]:
        """What runs a few inputs, and what runs many."""
        return self._chosen.ways

    def __call__(self, stacked: Tensor, normalised: Run) -> Tensor:
        """Map a batch as `Preprocessor.stacked` gives it to float32 features, (batch, width), on the device."""
        with torch.inference_mode():
            if self._lane is not None:
                inputs = self._lane.brought(stacked, normalised)
            else:
                inputs = normalised(stacked.to(self._device))
            chosen = self._chosen
            return (chosen.few if len(inputs) < FEW else chosen.many)(inputs)

    def running(self, way: Run) -> Run:
        """Give what runs this way on the device: on CUDA by graphs, for the batch sizes in use."""
        if self._lane is None:
            return way
        return CudaGraphs(way, self._lane)

    def running_made(self, make: Callable[[], Run]) -> Run:
        """Make a way, and give what runs it on the device."""
        return self.running(make())

    def ready(self, run: Run, form: Tensor) -> None:
        """Have a run that is to be chosen prepared for the batch sizes in use; `form` is a batch on the device."""
        if isinstance(run, CudaGraphs) and isinstance(self.plain, CudaGraphs):
            run.record(self.plain.sizes, form)

    def choose(self, few: tuple[str, Run], many: tuple[str, Run], tried: tuple[Tensor, ...]) -> bool:
        """Run this way from the next batch on, if no answer of a version that runs by this would move; say so."""
        found = _Chosen((few[0], many[0]), few[1], many[1], tried)
        if not all(map(found.agrees, list(self.users))):
            return False
        self._chosen = found
        return True

    def agrees(self, network: Network) -> bool:
        """Say whether what runs now keeps this version's answers."""
        return self._chosen.agrees(network)


class Executions:
    """Makes the Execution of a backbone once, while anyone holds it. Safe to call from several threads.

    A version is served by its backbone as it stands; other ways are tried beside it, and taken over while it serves.
    """

    def __init__(self, device: torch.device, options: Options, pause: Pause = go_on) -> None:
        """`pause` is called between the passes of a trial."""
        self._device = device
        self._lane = _lane(device)
        self._options = options
        self._pause = pause
        self._made: WeakValueDictionary[int, Execution] = WeakValueDictionary()  # by the backbone's id
        self._soonest: dict[str, tuple[str, str]] = {}  # for networks of one form
        self._prepared: WeakSet[Execution] = WeakSet()
        self._looking = threading.Lock()
        self._preparing = threading.Lock()  # one at a time: what is timed beside another tells nothing
        self._ended = threading.Event()

    def of(self, network: Network) -> Execution:
        """Give what runs the network's backbone; one that runs it as it stands if this version's answers would move."""
        with self._looking:
            found = self._made.get(id(network.backbone))
            if found is None:
                found = self._made[id(network.backbone)] = Execution(network.backbone, self._device, self._lane)
            if found.agrees(network):
                found.users.add(network)
                return found
        log.warning("answers would move, so the network runs as it stands", ways=found.ways)
        return Execution(network.backbone, self._device, self._lane)

    def prepare(self, network: Network) -> None:
        """Try other ways to run the network's backbone, if that was not done, and take the soonest over."""
        execution = self._made.get(id(network.backbone))
        if execution is None or execution in self._prepared:
            return
        with self._preparing:
            if execution in self._prepared:
                return
            self._prepared.add(execution)
            with suppress(_Ended):
                self._try(execution, network)

    def end(self) -> None:
        """Give up the trial under way at its next pass, and try no more; what serves goes on serving."""
        self._ended.set()

    def _breathe(self) -> None:
        self._pause()
        if self._ended.is_set():
            raise _Ended

    def _try(self, execution: Execution, network: Network) -> None:
        form = network.spec.form
        # Of a form that is known only the answers are compared, and a few tell: what serves needs the processor.
        inputs = example(network.spec.input, FEW if form in self._soonest else _MANY).to(self._device)
        ways = _ways(network.backbone, inputs, self._options)
        if not ways:
            return
        with torch.inference_mode():
            plain = execution.plain(inputs)
            runs: dict[str, Run] = {PLAIN: execution.plain}
            for name, make in ways.items():
                if form not in self._soonest or name in self._soonest[form]:
                    self._breathe()
                    run = _working(name, partial(execution.running_made, make), inputs, plain, self._breathe)
                    if run is not None:
                        runs[name] = run
            if form not in self._soonest:
                self._soonest[form] = (
                    _soonest(runs, inputs[:_ONE], self._breathe),
                    _soonest(runs, inputs, self._breathe),
                )
            few, many = (name if name in runs else PLAIN for name in self._soonest[form])
            tried = tuple(runs[name](inputs) for name in (few, many) if name != PLAIN)
            for name in {few, many}:
                execution.ready(runs[name], inputs)
        if not tried:
            return
        with self._looking:
            taken = execution.choose((few, runs[few]), (many, runs[many]), (plain, *tried))
        if taken:
            log.info("backbone prepared", few=few, many=many)
        else:
            log.warning("answers would move, so the network runs as it stands", ways=(few, many))


def _lane(device: torch.device) -> CudaLane | None:
    return CudaLane(device) if device.type == "cuda" else None


def _ways(network: nn.Module, inputs: Tensor, options: Options) -> Mapping[str, Callable[[], Run]]:
    """Name the ways beside the plain one that are worth a trial, and how each is made."""
    ways: dict[str, Callable[[], Run]] = {}
    halves = options.precision == BFLOAT16
    convolutions = options.packing and any(isinstance(one, nn.Conv2d) for one in network.modules())
    if convolutions and inputs.device.type == "cuda":
        ways["folded"] = partial(folded, network, inputs[:_ONE])
        if halves:
            ways[f"folded, {BFLOAT16}"] = partial(folded, network, inputs[:_ONE], torch.bfloat16)
    elif convolutions and inputs.device.type == "cpu":
        ways["packed"] = partial(packed, network, inputs[:_ONE])
        ways["blocked"] = partial(blocked, network, inputs, batch=_MANY)
        if halves:
            ways[f"packed, {BFLOAT16}"] = partial(packed, network, inputs, torch.bfloat16, batch=_MANY)
    if halves:
        ways[BFLOAT16] = lambda: Cast(copy.deepcopy(network).to(torch.bfloat16), torch.bfloat16)
    return ways


def _working(name: str, make: Callable[[], Run], inputs: Tensor, plain: Tensor, pause: Pause) -> Run | None:
    """Make a way and run it; None when it cannot be made, or gives other features than the plain one."""
    try:
        run = make()
        near = True
        for count in sorted({_ONE, FEW, len(inputs)}):
            pause()
            near = near and _near(plain[:count], run(inputs[:count]), _ROUGH if BFLOAT16 in name else _EXACT)
    except FAILURES as error:  # a step that cannot be rewritten, an old processor
        log.info("backbone not prepared", way=name, error=f"{type(error).__name__}: {error}"[:200])
        return None
    if not near:
        log.warning("backbone not prepared", way=name, error="its features are not near")
    return run if near else None


def _soonest(runs: Mapping[str, Run], inputs: Tensor, pause: Pause) -> str:
    """Time each in turn, and again; the plain one unless another is sooner by more than noise."""
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
    return name if best[name] * _GAIN < best[PLAIN] else PLAIN


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
