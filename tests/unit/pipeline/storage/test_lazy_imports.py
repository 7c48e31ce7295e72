import subprocess
import sys

import pytest

PROGRAM = """
import sys
import cli.build, consumer.app, notify.app, pipeline.export, pipeline.storage
from config.settings import load
cli.build.storage(load({"LANGFUSE_S3_BATCH_EXPORT_BUCKET": "b"}))
print([name for name in sys.modules if name.split(".")[0] in {"azure", "google", "msal"}])
"""


@pytest.mark.slow
def test_the_packages_of_azure_and_google_are_imported_only_for_their_stores() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
