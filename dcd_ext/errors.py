"""One shape for every error a user can cause.

``<what is wrong> – <where> – expected <x>, found <y> – <next step>``
"""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """An error whose text says what is wrong, where, what was expected and what to do next.

    Args:
        what: what is wrong, in a few words.
        where: the file, config key, case or module concerned.
        expected: what should have been there.
        found: what is there instead.
        next_step: what the user does now, as a command where there is one.

    Example:
        >>> str(UserError("teacher weights are missing", "models/model.pt", "a file", "nothing", "train the teacher"))
        'teacher weights are missing – models/model.pt – expected a file, found nothing – train the teacher'
    """

    def __init__(self, what: str, where: object, expected: object, found: object, next_step: str) -> None:
        super().__init__(f"{what} – {where} – expected {expected}, found {found} – {next_step}")
