"""Declares the three errors, named by what the caller does next."""


class Rejected(Exception):
    """The request can't be honoured: show the text to the user and never retry."""


class Unavailable(Exception):
    """A dependency failed or its answer was incomplete: retry later; the text is for the person on call.

    `advice` is the text for the user after the last attempt, if the user can do more than try again.
    """

    def __init__(self, message: str = "", *, advice: str | None = None) -> None:
        super().__init__(message)
        self.advice = advice


class Cancelled(Exception):
    """The export was cancelled or its lease was lost: stop without an error and leave nothing behind."""
