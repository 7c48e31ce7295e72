"""Builds Waybill's image with its Dockerfile, and prints its name and size."""

import sys

from tests.containers import engine, images


def main() -> None:
    """Build the image; ends with status 1 where containers can't be run."""
    if reason := engine.forbidden() or engine.missing():
        sys.exit(reason)
    name = images.waybill()
    print(name, engine.podman("image", "inspect", "--format", "{{.Size}}", name).strip(), "bytes")


if __name__ == "__main__":
    main()
