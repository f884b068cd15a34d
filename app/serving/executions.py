"""The executions of all backbones that are loaded, and the trials of how to run each soonest.

Owned by the PredictorLoader. Knows nothing of versions or HTTP.
"""

import threading
from contextlib import suppress
from functools import partial
from weakref import WeakSet, WeakValueDictionary

import torch

from app.log import get_logger
from app.networks.backbone import example
from app.networks.buffer_pool import Seat
from app.networks.network import Network
from app.networks.recording import Recording
from app.networks.serialization import Pause, go_on
from app.serving.cuda_graphs import Run
from app.serving.execution import Execution, lane_of
from app.serving.ways import FEW, MANY, ONE, PLAIN, Options, soonest, ways, working

log = get_logger(__name__)


class _Ended(Exception):
    """The server stops, so the trial under way is given up."""


class Executions:
    """Makes the Execution of a backbone once, while anyone holds it. Safe to call from several threads.

    A version is served by its backbone as it stands; other ways are tried beside it, and taken over while it serves.
    """

    def __init__(self, device: torch.device, options: Options, pause: Pause = go_on) -> None:
        """`pause` is called between the passes of a trial."""
        self._device = device
        self._lane = lane_of(device)
        self._options = options
        self._pause = pause
        self._made: WeakValueDictionary[int, Execution] = WeakValueDictionary()  # by the backbone's id
        self._soonest: dict[str, tuple[str, str]] = {}  # for networks of one form
        self._recordings: dict[str, dict[str, Recording | None]] = {}  # of networks of one form, by way
        self._prepared: WeakSet[Execution] = WeakSet()
        self._looking = threading.Lock()
        self._preparing = threading.Lock()  # one at a time: what is timed beside another tells nothing
        self._ended = threading.Event()

    def of(self, network: Network, seat: Seat | None = None) -> Execution:
        """Give what runs the network's backbone; one that runs it as it stands if this version's answers would move.

        `seat` is where the backbone lies on an accelerator.
        """
        with self._looking:
            found = self._made.get(id(network.backbone))
            if found is None:
                found = self._made[id(network.backbone)] = Execution(network.backbone, self._device, self._lane, seat)
            if found.agrees(network):
                found.users.add(network)
                return found
        log.warning("answers would move, so the network runs as it stands", ways=found.ways)
        return Execution(network.backbone, self._device, self._lane, seat)

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
        inputs = example(network.spec.input, FEW if form in self._soonest else MANY).to(self._device)
        found = ways(network.backbone, inputs, self._options, self._recordings.setdefault(form, {}))
        if not found:
            execution.ready(execution.plain, inputs, self._breathe)
            return
        with torch.inference_mode():
            plain = execution.plain(inputs)
            runs: dict[str, Run] = {PLAIN: execution.plain}
            for name, make in found.items():
                if form not in self._soonest or name in self._soonest[form]:
                    self._breathe()
                    run = working(name, partial(execution.made, name, make), inputs, plain, self._breathe)
                    if run is not None:
                        runs[name] = run
            if form not in self._soonest:
                self._soonest[form] = (
                    soonest(runs, inputs[:ONE], self._breathe),
                    soonest(runs, inputs, self._breathe),
                )
            few, many = (name if name in runs else PLAIN for name in self._soonest[form])
            tried = tuple(runs[name](inputs) for name in {few, many} - {PLAIN})
            for name in {few, many}:
                execution.ready(runs[name], inputs, self._breathe)
        if not tried:
            return
        with self._looking:
            taken = execution.choose((few, runs[few]), (many, runs[many]), (plain, *tried))
        if taken:
            log.info("backbone prepared", few=few, many=many)
        else:
            log.warning("answers would move, so the network runs as it stands", ways=(few, many))
