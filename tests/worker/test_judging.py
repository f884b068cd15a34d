"""Which samples a version is asked about, and who is best."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.networks.features import features_content
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput
from worker.decoding import Decoder
from worker.gate import Judged
from worker.judging import best_of_the_line, complete


def test_only_what_was_not_asked_before_is_asked() -> None:
    asked: list[float] = []

    def predict(items: Sequence[Tensor]) -> list[int | None]:
        asked.extend(float(item) for item in items)
        return [int(item) for item in items]

    items = [torch.tensor(float(number)) for number in range(4)]
    scores = complete({"b": None, "c": 9}, ["a", "b", "c", "d"], items, predict)
    assert scores == {"a": 0, "b": None, "c": 9, "d": 3}
    assert asked == [0.0, 3.0]


def test_the_best_of_the_line_is_right_most_often_and_of_equals_the_newest() -> None:
    judged = [Judged(1, live=1, anchor=1, candidate=2), Judged(1, live=2, anchor=1, candidate=1)]
    assert best_of_the_line(judged, "anchor", "live", "candidate") == "anchor"
    assert best_of_the_line(judged[:1], "anchor", "live", "candidate") == "live"
    assert best_of_the_line(judged[1:], "anchor", "live", "candidate") == "candidate"
    assert best_of_the_line(judged[1:], "anchor", "live", None) == "anchor"
    assert best_of_the_line([], "anchor", "live", "candidate") == "candidate"


@dataclass(frozen=True)
class Content:
    sample_id: str
    content_digest: str


def test_decoded_inputs_are_kept_up_to_a_number_of_bytes_and_read_only_when_they_are_not() -> None:
    spec = NetworkSpec("mlp", FeaturesInput(size=10))
    stored = {str(number): features_content([float(number)] * 10) for number in range(3)}
    reads: list[str] = []

    def read(sample_ids: Collection[str]) -> dict[str, bytes]:
        reads.extend(sample_ids)
        return {sample_id: stored[sample_id] for sample_id in sample_ids if sample_id in stored}

    decoder = Decoder(read, limit=100)  # two and a half vectors of 40 bytes
    contents = [Content(str(number), f"digest {number}") for number in range(3)]
    first = decoder.decode(spec, contents)
    assert reads == ["0", "1", "2"]
    assert decoder.decode(spec, contents[1:]) == {"1": first["1"], "2": first["2"]}
    assert reads == ["0", "1", "2"]
    again = decoder.decode(spec, contents[:1])["0"]
    assert again is not first["0"]
    assert torch.equal(again, first["0"])


def test_a_sample_whose_input_is_gone_is_left_out() -> None:
    spec = NetworkSpec("mlp", FeaturesInput(size=1))
    decoder = Decoder(lambda sample_ids: {"here": features_content([1.0])})
    assert list(decoder.decode(spec, [Content("here", "a"), Content("withdrawn", "b")])) == ["here"]
