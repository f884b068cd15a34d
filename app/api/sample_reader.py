"""From a posted item to a sample that can be stored, or the reason why it cannot; and the tally of both.

One bad item never sinks the rest. Called by the samples routes, in a thread: it decodes what it is given.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from app.api.complaints import complaint, place
from app.api.error_handlers import AllRejected
from app.api.payloads import Payload, payload, require_kind
from app.api.schemas.samples import RejectedItem, SampleItem, SamplesAnswer, TakenItem
from app.errors import Gone, InvalidItem, NotFound
from app.networks.preprocessor import Preprocessor
from app.serving.prediction_writer import PredictionWriter
from app.storage.intake import Accepted, Intake, NewSample, Refused
from app.storage.predictions import PredictionLog
from app.storage.tables import Model

LISTED = 10_000
_CONFLICT = "id_conflict"
_STATUS = {"prediction_expired": 410, "unknown_prediction": 404, "too_large": 413}


@dataclass(frozen=True)
class Item:
    """A posted item at its place; `given` is its input where that came beside the item, as a form's file does."""

    index: int
    sample: SampleItem
    given: Payload | None = None


@dataclass
class Tally:
    """What became of the items of one request; its lists are bounded, its counts are not."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    rejected: list[RejectedItem] = field(default_factory=list)
    samples: list[TakenItem] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)

    def reject(self, index: int, code: str, detail: str) -> None:
        self.refused += 1
        self.codes.add(code)
        if len(self.rejected) < LISTED:
            self.rejected.append(RejectedItem(index=index, code=code, detail=detail))

    def take(self, index: int, outcome: Accepted) -> None:
        self.accepted += not outcome.duplicate
        self.duplicates += outcome.duplicate
        if len(self.samples) < LISTED:
            self.samples.append(TakenItem(index=index, id=outcome.id, state=outcome.state, note=outcome.note))

    def answer(self) -> SamplesAnswer:
        """Give the answer as it stands."""
        return SamplesAnswer(
            accepted=self.accepted,
            duplicates=self.duplicates,
            rejected=sorted(self.rejected, key=lambda one: one.index),
            samples=self.samples,
            truncated=self.refused > LISTED or self.accepted + self.duplicates > LISTED,
        )

    def final(self) -> SamplesAnswer:
        """Give the answer; AllRejected if no item could be used at all.

        A client's id used for two things is an item's matter even then: the first sample is stored and well.
        """
        answer = self.answer()
        if self.accepted or self.duplicates or not self.refused or _CONFLICT in self.codes:
            return answer
        first = answer.rejected[0]
        detail = (
            first.detail
            if self.refused == 1
            else f"None of {self.refused} items can be used. The first: {first.detail}"
        )
        status = _STATUS.get(first.code, 422) if len(self.codes) == 1 else 422
        raise AllRejected(detail, answer.model_dump(mode="json"), status)


class SampleReader:
    """Reads items for one model and one caller."""

    def __init__(
        self,
        model: Model,
        preprocessor: Preprocessor,
        writer: PredictionWriter,
        predictions: PredictionLog,
        *,
        source: str,
    ) -> None:
        self._model = model
        self._preprocessor = preprocessor
        self._writer = writer
        self._predictions = predictions
        self._source = source

    def read(self, item: Item) -> NewSample:
        """Give the sample; InvalidItem says why it is none."""
        sample = item.sample
        return NewSample(
            content=self._content(item),
            label=sample.label,
            client_id=sample.id,
            source=sample.source or self._source,
            why=sample.why,
            prediction_id=sample.prediction_id,
            split=sample.split,
        )

    def _content(self, item: Item) -> bytes:
        sample = item.sample
        given = item.given or payload(sample.image, sample.text, sample.features)
        if sample.prediction_id is not None:
            if given is not None:
                raise InvalidItem("several_inputs", f"Expected one input; got prediction_id and {given.kind}.")
            return self._predicted(sample.prediction_id)
        if given is None:
            raise InvalidItem("no_input", "Expected one of image, text, features, prediction_id; got none.")
        content = require_kind(given, self._model.input["kind"])
        self._preprocessor.check(content)
        return content

    def _predicted(self, prediction_id: str) -> bytes:
        waiting = self._writer.find(prediction_id)
        if waiting is not None and waiting.model_id == self._model.id:
            return waiting.content
        try:
            return self._predictions.get(self._model.id, prediction_id).content
        except Gone as error:
            raise InvalidItem("prediction_expired", str(error)) from None
        except NotFound as error:
            raise InvalidItem("unknown_prediction", str(error)) from None


class SampleTaker:
    """Takes the items of one request in, group by group, and keeps the tally."""

    def __init__(self, intake: Intake, model: Model, reader: SampleReader, *, actor: str) -> None:
        self._intake = intake
        self._model = model
        self._reader = reader
        self._actor = actor
        self.tally = Tally()

    def take_json(self, raw: Sequence[object]) -> None:
        """Take in the items of a JSON body."""
        self.take(read_items(raw, self.tally))

    def take_lines(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Take in lines of NDJSON with their numbers."""
        self.take(read_lines(lines, self.tally))

    def take(self, items: Iterable[Item]) -> None:
        """Read the items and store the good ones in one transaction; Overloaded when the queue is full."""
        places, samples = [], []
        for item in items:
            try:
                samples.append(self._reader.read(item))
            except InvalidItem as error:
                self.tally.reject(item.index, error.code, error.detail)
            else:
                places.append(item.index)
        if not samples:
            return
        for index, outcome in zip(places, self._intake.put(self._model, samples, self._actor), strict=True):
            if isinstance(outcome, Refused):
                self.tally.reject(index, outcome.code, outcome.detail)
            else:
                self.tally.take(index, outcome)


def read_items(raw: Sequence[object], tally: Tally) -> list[Item]:
    """Give the items of a JSON body that have the right shape; the others go to the tally."""
    shape = TypeAdapter(SampleItem)
    items = []
    for index, one in enumerate(raw):
        try:
            items.append(Item(index, shape.validate_python(one, strict=True)))
        except ValidationError as error:
            tally.reject(index, "invalid_sample", _shape_error(error))
    return items


def read_lines(lines: Sequence[tuple[int, bytes]], tally: Tally) -> list[Item]:
    """Give the items of NDJSON lines that have the right shape; the others go to the tally."""
    items = []
    for index, line in lines:
        try:
            items.append(Item(index, SampleItem.model_validate_json(line, strict=True)))
        except ValidationError as error:
            broken = error.errors(include_input=False, include_url=False)[0]["type"] == "json_invalid"
            tally.reject(index, "invalid_json" if broken else "invalid_sample", _shape_error(error))
    return items


def _shape_error(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(place(first["loc"], SampleItem))
    words = complaint(first, SampleItem)
    return f"{where}: {words}" if where else words
