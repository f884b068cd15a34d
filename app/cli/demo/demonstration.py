"""The demo's story: predictions, late labels, a new class, a poisoned batch, a rollback; told by the wire alone.

Called by `perennial demo`. Starts a real server and worker, and exits with 0 only if every promise held.
"""

import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.cli.demo.client import Answered, TaughtModel, in_parts, until
from app.cli.demo.datasets import Dataset, Item, digits, fashion_mnist
from app.cli.demo.screen import Accuracy, Screen
from app.cli.instance import Instance
from app.errors import DeadlineExceeded, Invalid

LABELS_LATE_BY = 2  # batches: the labels of one come after the predictions of the next but one
POISON = 200
AFTER = 160  # items taught after the poison, to have something to roll back
SECONDS_A_BATCH = 0.6
NUDGE_SECONDS = 4.0  # longer than the recipe's trigger waits


@dataclass(frozen=True)
class Plan:
    """What is streamed, and what must hold."""

    data: Dataset
    recipe: dict[str, Any]
    accuracy: float
    batch: int = 32
    first_taught_seconds: float = 60.0
    rollback_ms: float = 1000.0


@dataclass
class Story:
    """What has been seen so far."""

    began: float = field(default_factory=time.monotonic)
    first_taught_seconds: float | None = None
    nudged: float = 0.0
    told: int = 1  # the highest version whose verdict was told


def plan_for(dataset: str, folder: Path | None) -> Plan:
    """Choose the data. Raises Invalid for an unknown name or missing files."""
    if dataset == "digits":
        return Plan(digits(), {"trigger": {"samples": 32, "seconds": 2}}, accuracy=0.9)
    if dataset == "fashion-mnist":
        if folder is None:
            raise Invalid("--dataset fashion-mnist needs --data-dir, the folder where its files lie.")
        # Clothes are harder to tell apart: larger updates move further, and the gate sees it.
        recipe = {"trigger": {"samples": 256, "seconds": 3}}
        return Plan(fashion_mnist(folder, taught=4000, test=1000), recipe, accuracy=0.75, batch=64)
    raise Invalid(f"There is no data set {dataset!r} here; choose digits or fashion-mnist.")


def run(dataset: str, data_dir: Path | None, service_dir: Path | None, *, port: int, keep: bool) -> int:
    """Tell the whole story; 0 when everything promised held, 1 otherwise."""
    plan = plan_for(dataset, data_dir)
    folder = service_dir or Path("perennial-data") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    if (folder / "perennial.db").exists():
        raise Invalid(f"{folder} holds a service already; the demo begins with an empty folder.")
    story = Story()
    screen = Screen(len(plan.data.taught) - POISON)
    screen.step(f"Starting a server and a worker in {folder}")
    instance = Instance(folder, port)
    try:
        instance.start()
        screen.say(f"serving at {instance.url}, its log is {instance.log_file}")
        with instance.connection() as connection:
            held = _show(TaughtModel(connection, plan.data.name), plan, story, screen)
        if keep:
            screen.step("It goes on running until you press Ctrl-C")
            screen.say(f"{instance.url}/docs   key: {instance.key}")
            instance.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        instance.stop()
    return 0 if held else 1


def _show(model: TaughtModel, plan: Plan, story: Story, screen: Screen) -> bool:
    """Tell the story and sum it up; whether everything held."""
    try:
        with screen:
            rows = _tell(model, plan, story, screen)
    except DeadlineExceeded as error:
        screen.say(str(error))
        return False
    screen.summary(rows)
    return all(held for _, _, held in rows)


def _tell(model: TaughtModel, plan: Plan, story: Story, screen: Screen) -> list[tuple[str, str, bool]]:
    labels = plan.data.labels
    late = labels[-1]
    stream, poison, after = _parts(plan.data)
    known = [item for item in stream if item.label != late]
    first = known[: len(known) // 2]
    seen = {id(item) for item in first}

    model.create({"input": plan.data.input, "labels": list(labels[:-1]), "recipe": plan.recipe})
    screen.step(f"1. Predictions first, labels {LABELS_LATE_BY} batches later; {len(labels) - 1} classes")
    accuracy = Accuracy()
    _stream(model, plan, first, accuracy, story, screen)
    screen.step(f"2. A class nobody has named before: {late!r}")
    _stream(model, plan, [item for item in stream if id(item) not in seen], accuracy, story, screen)
    until(lambda: _settled(model, plan, story, screen), 90, "the stream should be learned")

    screen.step(f"3. {POISON} samples whose labels are all wrong, from 'mallory'")
    before = model.live()
    right_before = model.accuracy(plan.data.test)
    shifted = [labels[(labels.index(item.label) + 1) % len(labels)] for item in poison]
    model.teach(poison, shifted, "mallory")
    refused = _watch_poison(model, plan, story, screen)
    never_live = refused and model.live() == before
    screen.say(f"version {model.live()} is live, as before" if never_live else f"version {model.live()} went live!")
    screen.say(f"right on {len(plan.data.test)} {plan.data.name} nobody taught it: {right_before:.1%}")

    screen.step(f"4. {len(after)} more good samples")
    _stream(model, plan, after, accuracy, story, screen)
    until(lambda: _settled(model, plan, story, screen), 90, "the last samples should be learned")
    final = model.accuracy(plan.data.test)

    screen.step("5. Rolling back one version, data included")
    took_ms = _roll_back(model, plan, screen)

    taught = story.first_taught_seconds
    return [
        (
            f"first taught version live within {plan.first_taught_seconds:.0f} s",
            "never" if taught is None else f"{taught:.1f} s",
            taught is not None and taught <= plan.first_taught_seconds,
        ),
        (
            f"at least {plan.accuracy:.0%} right on {len(plan.data.test)} never taught",
            f"{final:.1%}",
            final >= plan.accuracy,
        ),
        (f"{POISON} wrong labels never live", "refused" if never_live else "went live", never_live),
        (f"rollback within {plan.rollback_ms:.0f} ms", f"{took_ms:.0f} ms", took_ms <= plan.rollback_ms),
    ]


def _parts(data: Dataset) -> tuple[list[Item], list[Item], list[Item]]:
    """The stream, what will be poisoned, and what is taught last; nothing twice, nothing of the test part."""
    items = list(data.taught)
    return items[POISON + AFTER :], items[:POISON], items[POISON : POISON + AFTER]


def _stream(
    model: TaughtModel, plan: Plan, items: list[Item], accuracy: Accuracy, story: Story, screen: Screen
) -> None:
    """Predict batch after batch; labels follow late, as they do in life."""
    late: deque[tuple[list[Answered], list[str]]] = deque()
    for batch in in_parts(items, plan.batch):
        began = time.monotonic()
        answers = model.predict(batch)
        accuracy.add([answer.right for answer in answers])
        late.append((answers, [item.label for item in batch]))
        if len(late) > LABELS_LATE_BY:
            model.label(*late.popleft(), "demo")
        screen.advance(len(batch), accuracy)
        _tell_verdicts(model, plan, story, screen)
        time.sleep(max(0.0, SECONDS_A_BATCH - (time.monotonic() - began)))
    for answers, labels in late:
        model.label(answers, labels, "demo")
    screen.say(f"{accuracy.line()}  {accuracy.now:.0%} of the last answers were right, before the labels came")


def _tell_verdicts(model: TaughtModel, plan: Plan, story: Story, screen: Screen) -> None:
    """Say what the gate said of each version made since."""
    for version in model.versions():
        number = version["version"]
        if number <= story.told:
            continue
        story.told = number
        elapsed = time.monotonic() - story.began
        screen.say(f"{elapsed:5.1f} s  version {number} {version['verdict']}: {version['reason']}")
        if story.first_taught_seconds is None and version["verdict"] == "promoted":
            until(
                lambda: model.predict(plan.data.test[:1])[0].version > 1, 10, "the first taught version should answer"
            )
            story.first_taught_seconds = time.monotonic() - story.began


def _settled(model: TaughtModel, plan: Plan, story: Story, screen: Screen) -> bool:
    """Whether nothing waits and nothing is being learned.

    Samples of an inconclusive update wait for new ones to be judged with; where none will come, an update is asked
    for. After three such judgements they are set aside, so this comes to an end.
    """
    _tell_verdicts(model, plan, story, screen)
    left = model.unsettled()
    if "queued" in left and "claimed" not in left and time.monotonic() - story.nudged > NUDGE_SECONDS:
        story.nudged = time.monotonic()
        model.run("no more samples come")
    return not left


def _watch_poison(model: TaughtModel, plan: Plan, story: Story, screen: Screen) -> bool:
    """Wait until the service has made up its mind about the poison; whether none of it was taken."""
    until(lambda: _settled(model, plan, story, screen), 120, "the wrong labels should be judged")
    receipts = list(model.receipts(source="mallory"))
    reasons = {receipt["reason"] for receipt in receipts}
    states = model.states(source="mallory")
    screen.say(f"mallory's samples: {_in_words(states)}")
    for reason in sorted(reason for reason in reasons if reason):
        screen.say(f"their receipts say: {reason}")
    return set(states) == {"quarantined"}


def _roll_back(model: TaughtModel, plan: Plan, screen: Screen) -> float:
    before = model.states(source="demo")
    answer = model.roll_back("the demo shows how")
    asked = model.predict(plan.data.test[:1])
    after = model.states(source="demo")
    screen.say(
        f"version {answer['previous']} → {answer['live']} on {len(answer['servers'])} server "
        f"in {answer['took_ms']:.0f} ms"
    )
    screen.say(f"samples before: {_in_words(before)}")
    screen.say(f"samples after:  {_in_words(after)}")
    screen.say(f"the next prediction came from version {asked[0].version}")
    moved = not answer["stragglers"] and asked[0].version == answer["live"]
    return float(answer["took_ms"]) if moved else float("inf")


def _in_words(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(states.items())) or "none"
