"""Labels of a model: their ids, and what becomes of a name nobody has used before.

Steps inside a transaction that intake and corrections share. An id is model-wide and never used again.
"""

import difflib
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.errors import InvalidItem
from app.recipe import Recipe
from app.storage.database import literal
from app.storage.promotions import lock_model
from app.storage.states import LabelState, RevisionAction, RevisionState
from app.storage.tables import Label, Model, Revision


class LabelBook:
    """The labels of one model within one transaction; new names are entered by the recipe's policy."""

    def __init__(self, session: Session, model: Model, names: Iterable[str], at: datetime) -> None:
        self._session = session
        self._model = model
        self._policy = Recipe.model_validate(model.recipe).new_classes
        self._at = at
        self._by_name = self._read()
        self._proposed_used = False
        unsettled = [name for name in names if self._unsettled(name)]
        if unsettled:
            lock_model(session, model.id)  # ids are counted up and proposals counted under the line's lock
            self._by_name = self._read()

    def entry(self, name: str) -> Label:
        """The label of that name, entered now if the policy lets it; `InvalidItem("unknown_label")` if not."""
        label = self._by_name.get(name)
        if label is not None:
            self._proposed_used |= label.state == LabelState.PROPOSED
            return label
        if self._policy.policy == "refuse":
            known = ", ".join(repr(known) for known in list(self._by_name)[:10]) or "none yet"
            raise InvalidItem(
                "unknown_label",
                f"{name!r} is no label of {self._model.name!r} and its recipe refuses new ones"
                f"{self._hint(name)} Known labels: {known}.",
            )
        active = sum(label.state == LabelState.ACTIVE for label in self._by_name.values())
        # Below two classes there is nothing to confuse a new name with.
        proposed = self._policy.policy == "propose" and active >= 2
        label = Label(
            model_id=self._model.id,
            id=max((label.id for label in self._by_name.values()), default=0) + 1,
            name=name,
            state=LabelState.PROPOSED if proposed else LabelState.ACTIVE,
            created_at=self._at,
        )
        self._session.add(label)
        self._session.flush()
        self._by_name[name] = label
        self._proposed_used |= proposed
        return label

    def id_of(self, name: str) -> int | None:
        """The id of a label that is known already."""
        label = self._by_name.get(name)
        return None if label is None else label.id

    def accept_proposals(self) -> None:
        """Turn proposed labels that have samples enough into classes, and queue what waited for them."""
        if not self._proposed_used:
            return
        waiting = self._waiting()
        accepted = {label_id for label_id, count in waiting.items() if count >= self._policy.after}
        for label in self._by_name.values():
            if label.id in accepted:
                label.state = LabelState.ACTIVE
        self._session.execute(
            update(Revision)
            .where(
                Revision.model_id == self._model.id,
                Revision.state == literal(RevisionState.WAITING),
                Revision.label_id.in_(accepted),
            )
            .values(state=RevisionState.QUEUED)
        )

    def notes(self) -> dict[int, str]:
        """What senders of proposed labels should know, in words, by label id."""
        if not self._proposed_used:
            return {}
        waiting = self._waiting()
        return {
            label.id: f"waits for {self._policy.after - waiting.get(label.id, 0)} more of the new label "
            f"{label.name!r}{self._hint(label.name)}".rstrip(".")
            for label in self._by_name.values()
            if label.state == LabelState.PROPOSED
        }

    def name(self, label_id: int) -> str:
        return next(label.name for label in self._by_name.values() if label.id == label_id)

    def _waiting(self) -> dict[int, int]:
        rows = self._session.execute(
            select(Revision.label_id, func.count(func.distinct(Revision.sample_id)))
            .where(
                Revision.model_id == self._model.id,
                Revision.state == literal(RevisionState.WAITING),
                Revision.action != RevisionAction.REMOVE,
            )
            .group_by(Revision.label_id)
        )
        return dict(rows.all())

    def _read(self) -> dict[str, Label]:
        rows = self._session.scalars(
            select(Label)
            .where(Label.model_id == self._model.id)
            .order_by(Label.id)
            .execution_options(populate_existing=True)
        )
        return {label.name: label for label in rows}

    def _unsettled(self, name: str) -> bool:
        label = self._by_name.get(name)
        return label is None or label.state == LabelState.PROPOSED

    def _hint(self, name: str) -> str:
        active = [label.name for label in self._by_name.values() if label.state == LabelState.ACTIVE]
        near = difflib.get_close_matches(name, active, n=1, cutoff=0.6)
        return f"; did you mean {near[0]!r}?" if near else "."
