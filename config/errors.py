"""Names the errors by what the caller does next."""


class Rejected(Exception):
    """The request can't be honoured as it is: tell the user, in these words, and never retry."""


class Unavailable(Exception):
    """A dependency failed or cut an answer short: retry later; the text is for the person on call."""


class Cancelled(Exception):
    """The export was cancelled, or its lease is lost: stop quietly and leave nothing behind."""
