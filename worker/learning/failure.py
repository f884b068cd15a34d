"""How learning ends without a result. Raised by the learner; the caller decides what becomes of the samples."""


class LearningFailed(Exception):
    """The samples, the settings or the numbers make learning impossible; the message says which."""


class LearningStopped(Exception):
    """The caller's `should_stop` said so between two steps; nothing was changed."""
