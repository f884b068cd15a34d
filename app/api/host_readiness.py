"""Whether all serving processes of a host that take connections can answer, whichever of them is asked."""

import json

from app.serving.readiness import Readiness
from app.serving.refresher import Refresher
from app.serving.siblings import Siblings


class HostReadiness:
    """Asks the siblings. Safe to call from several threads."""

    def __init__(self, refresher: Refresher, siblings: Siblings) -> None:
        self._refresher = refresher
        self._siblings = siblings

    def found(self) -> Readiness:
        """Name the models that wait, or are degraded, in any process that takes connections."""
        all_found = [self._refresher.readiness()]
        for answer in self._siblings.ask("ready").values():
            try:
                told = json.loads(answer)
            except ValueError:  # empty or cut short: as if it were not there
                continue
            if told is not None:
                all_found.append(Readiness(waiting=tuple(told["waiting"]), degraded=tuple(told["degraded"])))
        return Readiness(
            waiting=tuple(dict.fromkeys(name for one in all_found for name in one.waiting)),
            degraded=tuple(dict.fromkeys(name for one in all_found for name in one.degraded)),
        )

    def tell(self) -> bytes:
        """Tell a sibling how this process stands; nothing while it takes no connections, for then nobody minds."""
        found = self._refresher.readiness()
        told = {"waiting": found.waiting, "degraded": found.degraded} if self._siblings.taking else None
        return json.dumps(told).encode()
