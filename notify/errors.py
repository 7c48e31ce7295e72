"""Names the ways a notice can fail, by what the caller does next."""


class Unavailable(Exception):
    """The mail server can't take it now: retry later; the text is for the person on call and holds no address."""


class Undeliverable(Exception):
    """No retry will help: the address or the message is refused; the text says by whom and holds no address."""


class Unanswered(Exception):
    """The server has the whole mail and never said whether it takes it: retry, but rarely, for it may come twice."""
