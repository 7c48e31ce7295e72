"""What to say when the packages of the extra `embedded` are not installed."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed() -> Iterator[None]:
    """Turn the ImportError of an absent package into an exit that says what to install."""
    try:
        yield
    except ImportError as error:
        raise SystemExit(
            f"The embedded stack needs the package {error.name!r}, which is not installed. "
            "Install Waybill with its extra: pip install 'waybill[embedded]'"
        ) from error
