"""Every error this product raises on purpose, in one tree.

    PerennialError
    ├── NotFound        what was named does not exist            (UnknownModel, UnknownVersion, …)
    │   └── Gone        it existed and was let go                (PredictionExpired)
    ├── Conflict        the state forbids it now                 (StaleParent, LeaseLost, …)
    ├── Invalid         the input is wrong, and why              (InvalidItem, UnknownLabel, …)
    │   ├── TooLarge
    │   └── Unsupported
    ├── Unauthenticated, Forbidden
    ├── Unavailable     not ready, try again                     (NoLiveModel, …)
    │   ├── Overloaded  a queue is full
    │   └── DeadlineExceeded
    └── Corrupt         bytes that are not what their record says

An error carries facts as attributes and its message says what to do next.
HTTP status is decided in `app/api/error_handlers.py`, nowhere else.
"""


class PerennialError(Exception):
    """The base of all: catch it to catch everything raised on purpose."""


class NotFound(PerennialError):
    """What was named does not exist."""


class UnknownModel(NotFound):
    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"There is no model named {model!r}. GET /v1/models lists those that exist.")


class UnknownFamily(NotFound):
    def __init__(self, family: str) -> None:
        self.family = family
        super().__init__(f"There is no family named {family!r}. GET /v1/families lists those that exist.")


class UnknownVersion(NotFound):
    def __init__(self, model: str, version: int | str) -> None:
        self.model = model
        self.version = version
        super().__init__(
            f"Model {model!r} has no version {version}. GET /v1/models/{model}/versions lists its versions."
        )


class UnknownSample(NotFound):
    def __init__(self, sample: str) -> None:
        self.sample = sample
        super().__init__(f"There is no sample {sample!r} of this model. Its id stands in the answer that accepted it.")


class UnknownPrediction(NotFound):
    def __init__(self, prediction: str) -> None:
        self.prediction = prediction
        super().__init__(f"There is no prediction {prediction!r} of this model. Its id stands in predict's answer.")


class UnknownKey(NotFound):
    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"There is no key {key!r}. `perennial keys list` shows the keys.")


class NothingLearned(NotFound):
    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"Model {model!r} has learned no sample that could be rehearsed. POST labelled samples first.")


class Gone(NotFound):
    """It existed, and was let go on purpose."""


class PredictionExpired(Gone):
    def __init__(self, prediction: str) -> None:
        self.prediction = prediction
        super().__init__(f"Prediction {prediction!r} is older than what is kept. Send the input itself with the label.")


class FilesGone(Gone):
    def __init__(self, model: str, version: int) -> None:
        self.model = model
        self.version = version
        super().__init__(
            f"The weights of version {version} of {model!r} were let go by retention; its record remains. "
            "Choose a version whose `files` is `present`."
        )


class Conflict(PerennialError):
    """The state as it stands forbids this; look at it again and decide anew."""


class AlreadyExists(Conflict):
    def __init__(self, noun: str, name: str) -> None:
        self.noun = noun
        self.name = name
        super().__init__(f"A {noun} named {name!r} exists already. Choose another name.")


class LeaseLost(Conflict):
    """The update is no longer this worker's: its lease lapsed or an admin moved the line."""

    def __init__(self, update: int) -> None:
        self.update = update
        super().__init__(
            f"Update {update} is no longer running under this worker: its lease lapsed or the line moved. "
            "Nothing of it was published; its samples are back in the queue."
        )


class StaleParent(Conflict):
    """The line moved while the update ran."""

    def __init__(self, update: int, expected_epoch: int, epoch: int) -> None:
        self.update = update
        self.expected_epoch = expected_epoch
        self.epoch = epoch
        super().__init__(
            f"Update {update} began at epoch {expected_epoch}, but the line is at epoch {epoch}. "
            "Nothing of it was published; its samples are back in the queue."
        )


class Pinned(Conflict):
    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"Model {model!r} is pinned: promotions are held. POST learning/unpin frees them.")


class NothingToRollBackTo(Conflict):
    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"The live version of {model!r} has nothing before it to fall back to. "
            f"POST /v1/models/{model}/versions/{{n}}/promote makes another live."
        )


class Invalid(PerennialError):
    """The input is wrong; the message says what was expected, what came, and what to do."""


class InvalidItem(Invalid):
    """One item of a request cannot be used. `code` is stable and meant for programs."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class InvalidNetwork(Invalid):
    """The network cannot be built or does not fit its spec."""


class InvalidSetting(Invalid):
    """A setting of the process is wrong; nothing was started."""


class TooLarge(Invalid):
    def __init__(self, what: str, limit: str) -> None:
        self.what = what
        self.limit = limit
        super().__init__(f"{what} is larger than the limit of {limit}. Send less at a time.")


class Unsupported(Invalid):
    """The media type is not one of those this call takes."""


class Unauthenticated(PerennialError):
    def __init__(self, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(
            "The key that was sent is not valid here: mistyped, revoked, or of another server. "
            "`perennial keys list` shows the keys, `perennial keys create` makes one."
            if sent
            else "This call needs a key: send `Authorization: Bearer prn_…`. `perennial keys create` makes one."
        )


class Forbidden(PerennialError):
    def __init__(self, needed: str, scope: str) -> None:
        self.needed = needed
        self.scope = scope
        super().__init__(
            f"This call needs a key of scope {needed!r}; the one sent has scope {scope!r}. "
            f"`perennial keys create --scope {needed}` makes one."
        )


class Unavailable(PerennialError):
    """Not now; trying again later may work."""

    retry_after_seconds: int = 1


class NoLiveModel(Unavailable):
    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"Model {model!r} is not loaded here yet. Try again in a moment; /readyz says when.")


class Overloaded(Unavailable):
    """A bounded queue is full."""

    def __init__(self, what: str, retry_after_seconds: int) -> None:
        self.what = what
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{what} is full. Try again in {retry_after_seconds} s.")


class DeadlineExceeded(Unavailable):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"No answer within {seconds:g} s. Send fewer items, or try again when there is less load.")


class CannotListen(Unavailable):
    """The server's address cannot be had."""

    def __init__(self, host: str, port: int, why: str) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"Cannot listen on {host}:{port}: {why}. "
            "Another program may hold the port; stop it, or choose another with --port."
        )


class Corrupt(PerennialError):
    """Stored bytes are not what their record says; they are not used."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(f"{what} is corrupt: {why}. It is not used; what was served before stays.")


class MissingWeights(Corrupt):
    def __init__(self, what: str) -> None:
        super().__init__(what, "the file is missing")


class MissingBase(Corrupt):
    """A version stored as what it changes cannot be put together."""

    def __init__(self, version: int, base_id: str, base: int | None, why: str) -> None:
        self.version = version
        self.base_id = base_id
        of = f"version {base}" if base is not None else f"version id {base_id}"
        super().__init__(
            f"version {version}",
            f"it holds only what it changes of {of}, which cannot be read ({why}). "
            "Bring that file back from a copy, or roll back to a version with another base",
        )
