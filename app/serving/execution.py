"""How a backbone is run: as it stands, or rewritten for the device where that was tried, found equal, and sooner.

Made through `Executions`, one for each backbone and shared by the versions on it; called by Predictor. The network
itself is never touched: who judges and learns holds it as it was saved. Knows nothing of versions or HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor, nn

from app.log import get_logger
from app.networks.backbone import FAILURES
from app.networks.buffer_pool import Seat
from app.networks.network import Network
from app.networks.serialization import Pause
from app.serving.cuda_graphs import SIZES, CudaGraphs, CudaLane, Run
from app.serving.ways import BFLOAT16, FEW, PLAIN, same_answers

log = get_logger(__name__)


@dataclass(frozen=True)
class _Chosen:
    """What runs a few inputs, and many; and the features of the same inputs, plain and by each way."""

    ways: tuple[str, str]
    few: Run
    many: Run
    tried: tuple[Tensor, ...] = ()

    def agrees(self, network: Network) -> bool:
        """Say whether a version on this backbone gives the answers that it gives without rewriting."""
        if not self.tried or not network.spec.labels:
            return True
        with torch.inference_mode():
            plain, *others = (network.head(network.fed(features)).float() for features in self.tried)
            rough = any(BFLOAT16 in way for way in self.ways)
            return all(same_answers(plain, own, rough=rough) for own in others)


class Execution:
    """Runs one backbone: as it stands, until something else is chosen. Safe to call from several threads."""

    def __init__(
        self, backbone: nn.Module, device: torch.device, lane: CudaLane | None = None, seat: Seat | None = None
    ) -> None:
        """On CUDA `lane` is the device's, which all that run there share; what is recorded stays with the seat."""
        self._backbone = backbone  # held, so that nothing else gets its id while this is known by it
        self._device = device
        self._lane = lane or lane_of(device)
        self._made: dict[str, tuple[Run, CudaGraphs]] = {} if seat is None else seat.made
        own = seat.module if seat is not None else None  # the seat must not hold the backbone, which would never go
        self.plain: Run = self._running(PLAIN, backbone if own is None else own)
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

    def made(self, name: str, make: Callable[[], Run]) -> Run:
        """Make a way to run the backbone on the device; where its seat has it, only its numbers are made anew."""
        way = make()
        kept = self._made.get(name)
        if kept is not None:
            _renew(kept[0], way)
        return self._running(name, way)

    def ready(self, run: Run, form: Tensor, pause: Pause) -> None:
        """Record what is recorded, for all batch sizes, as far as there is memory; `form` is a batch on the device."""
        if isinstance(run, CudaGraphs):
            for size in SIZES:
                pause()
                try:
                    run.record(size, form)
                except FAILURES as error:
                    log.info("batch size not recorded", size=size, error=f"{type(error).__name__}: {error}"[:200])
                    return

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

    def _running(self, name: str, way: Run) -> Run:
        if self._lane is None:
            return way
        return self._made.setdefault(name, (way, CudaGraphs(way, self._lane)))[1]


def lane_of(device: torch.device) -> CudaLane | None:
    """Give the streams and the turn of a CUDA device; None for any other."""
    return CudaLane(device) if device.type == "cuda" else None


@torch.no_grad()
def _renew(kept: Run, way: Run) -> None:
    """Give a way that stays the numbers of one that was made alike."""
    if isinstance(kept, nn.Module) and isinstance(way, nn.Module) and kept is not way:
        made = way.state_dict()
        for name, tensor in kept.state_dict().items():
            tensor.copy_(made[name])
