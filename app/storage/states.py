"""The words of enum columns: the lives of samples, labels, updates, files, and what is said of them.

They stand in columns of the tables as they are. Read by whoever asks where something stands; knows nothing of SQL.
"""

from enum import StrEnum


class SampleState(StrEnum):
    """The life of a sample, as its receipt tells it."""

    QUEUED = "queued"  # waits for an update, or for its label to become a class
    CLAIMED = "claimed"  # an update works on it now
    LEARNED = "learned"  # in the weights of a version of the line
    HELD_OUT = "held_out"  # never trained on; judges candidates
    QUARANTINED = "quarantined"  # set aside, with the reason; a person decides
    WITHDRAWN = "withdrawn"  # taken back by its owner


class RevisionAction(StrEnum):
    """What a label revision asks the learner to do."""

    ADD = "add"
    REPLACE = "replace"
    REMOVE = "remove"


class RevisionState(StrEnum):
    """Where a label revision stands; `queued` and `claimed` are the queue."""

    WAITING = "waiting"  # its label is only proposed yet
    QUEUED = "queued"
    CLAIMED = "claimed"
    LEARNED = "learned"  # in the ledger of a version of the line (role learn or holdout)
    QUARANTINED = "quarantined"
    ABANDONED = "abandoned"  # learned only in versions that were rolled back, and kept so
    SUPERSEDED = "superseded"  # a later revision of the same sample took its place


class LabelState(StrEnum):
    """A label's life; its id is never used again."""

    ACTIVE = "active"
    PROPOSED = "proposed"  # unknown so far; becomes a class with enough samples


class UpdateKind(StrEnum):
    LEARN = "learn"  # claims revisions
    REFINE = "refine"  # claims none: learns again what the line holds
    HOLD = "hold"  # keeps a lane still while the other publishes


class Lane(StrEnum):
    """At most one update runs per (model, lane)."""

    SLOW = "slow"  # fine-tuning
    FAST = "fast"  # the closed-form head


class UpdateState(StrEnum):
    RUNNING = "running"
    COMMITTED = "committed"  # judged, and its version recorded (promoted or not)
    FAILED = "failed"
    EXPIRED = "expired"  # its lease lapsed
    CANCELLED = "cancelled"  # an admin moved the line


class Verdict(StrEnum):
    """What the gate said of a version."""

    INITIAL = "initial"  # version 1, never judged
    PROMOTED = "promoted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"


class FileState(StrEnum):
    """Whether a version can still be loaded; the row outlives the files."""

    NONE = "none"  # built from base weights or a seed
    PRESENT = "present"
    DELETING = "deleting"
    DELETED = "deleted"


class ArtifactKind(StrEnum):
    WEIGHTS = "weights"
    LEARNER_STATE = "learner_state"


class LedgerRole(StrEnum):
    """On which side of the split a sample is: taught, judging, or only reported on."""

    LEARN = "learn"
    HOLDOUT = "holdout"
    TEST = "test"


class AssignmentRole(StrEnum):
    LIVE = "live"
    CANARY = "canary"
    SHADOW = "shadow"
