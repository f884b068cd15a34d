"""The tensors of an answer: which are asked for, and how they are filled from what a version said.

`probabilities` (inputs, labels) has its columns in the order of the version's labels; `label` (inputs,) is empty
while the version knows no class; `prediction_id` (inputs,) names each answer, so that it can be labelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.api.v2.message import Filled, in_elements
from app.api.v2.schemas import InferRequest
from app.errors import InvalidItem
from app.serving.predictor import Answer

NAMES = ("probabilities", "label", "prediction_id")


@dataclass(frozen=True)
class Wanted:
    """An output that goes into the answer: as bytes or in JSON, all labels or the best `classes`."""

    name: str
    binary: bool = False
    classes: int = 0


def wanted_by(asked: InferRequest) -> list[Wanted]:
    """Say which outputs a request wants: those it names, or all. InvalidItem for what there is not."""
    binary = bool(asked.parameters and asked.parameters.binary_data_output)
    if not asked.outputs:
        return [Wanted(name, binary) for name in NAMES]
    wanted: list[Wanted] = []
    for index, one in enumerate(asked.outputs):
        if one.name not in NAMES or one.name in (before.name for before in wanted):
            raise InvalidItem(
                "outputs",
                f"outputs[{index}]: expected one of {', '.join(NAMES)}, each once; got another, or one twice.",
            )
        given = one.parameters
        classes = 0 if given is None else given.classification or 0
        if classes and one.name != "probabilities":
            raise InvalidItem(
                "outputs", f"outputs[{index}]: only `probabilities` can be asked for its `classification`."
            )
        if given is not None and given.shared_memory_region is not None:
            raise InvalidItem("shared_memory", f"outputs[{index}]: tensors go with the answer, not into shared memory.")
        as_bytes = binary if given is None or given.binary_data is None else given.binary_data
        wanted.append(Wanted(one.name, as_bytes, classes))
    return wanted


def labels_needed(wanted: Sequence[Wanted], labels: int) -> int:
    """Say how many of the best labels each answer must hold."""
    return max((one.classes or labels for one in wanted if one.name == "probabilities"), default=1)


def filled(
    wanted: Sequence[Wanted], labels: Sequence[str], answers: Sequence[Answer], ids: Sequence[str]
) -> list[Filled]:
    """Fill the outputs, in the order in which they were asked for."""
    made = []
    for one in wanted:
        match one.name:
            case "label":
                made.append(_texts(one, [answer.label or "" for answer in answers], (len(answers),)))
            case "prediction_id":
                made.append(_texts(one, ids, (len(answers),)))
            case _ if one.classes:
                made.append(_classified(one, labels, answers))
            case _:
                made.append(_probabilities(one, labels, answers))
    return made


def _probabilities(one: Wanted, labels: Sequence[str], answers: Sequence[Answer]) -> Filled:
    column = {label: index for index, label in enumerate(labels)}
    beliefs = np.zeros((len(answers), len(labels)), dtype="<f4")
    for row, answer in zip(beliefs, answers, strict=True):
        row[[column[label] for label, _ in answer.top]] = [score for _, score in answer.top]
    if one.binary:
        return Filled(one.name, "FP32", beliefs.shape, (), beliefs.tobytes())
    return Filled(one.name, "FP32", beliefs.shape, beliefs.ravel().tolist())


def _classified(one: Wanted, labels: Sequence[str], answers: Sequence[Answer]) -> Filled:
    column = {label: index for index, label in enumerate(labels)}
    classes = min(one.classes, len(labels))
    texts = [f"{score:f}:{column[label]}:{label}" for answer in answers for label, score in answer.top[:classes]]
    return _texts(one, texts, (len(answers), classes))


def _texts(one: Wanted, texts: Sequence[str], shape: tuple[int, ...]) -> Filled:
    return Filled(one.name, "BYTES", shape, texts, in_elements(texts) if one.binary else None)
