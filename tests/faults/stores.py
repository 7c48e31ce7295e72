"""How the requests of each store are told apart, and how each store refuses."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.support import selection
from tests.support.http_proxy import Request, Responder
from tests.support.responses import refuse, reply

Matches = Callable[[Request], bool]
COMPLETED_S3 = (
    b"<?xml version='1.0'?><CompleteMultipartUploadResult><ETag>made up</ETag></CompleteMultipartUploadResult>"
)
COMPLETED_GOOGLE = b'{"name": "made up", "generation": "1", "size": "1"}'


@dataclass(frozen=True)
class StoreDialect:
    """The requests of a store by what they do, and its responses.

    `claim_success` answers a completion without the object; `refuse` makes an error of a status and a code.
    """

    sends_part: Callable[[int | None], Matches]
    completes: Matches
    puts_file: Matches
    puts_manifest: Matches
    aborts: Matches
    claim_success: Responder
    refuse: Callable[[int, str], Responder] = refuse
    lists_uploads: bool = True


def _any_part(matches: Matches) -> Callable[[int | None], Matches]:
    """Select parts by their number, which these requests do not have in their address."""
    return lambda number: lambda request: matches(request) and (number is None or selection.is_part(request, number))


DIALECTS = {
    "s3": StoreDialect(
        sends_part=selection.sends_part,
        completes=selection.completes,
        puts_file=selection.puts_file,
        puts_manifest=selection.puts_manifest,
        aborts=lambda request: request.method == "DELETE",
        claim_success=reply(200, COMPLETED_S3),
    ),
    "azure": StoreDialect(
        sends_part=_any_part(selection.stages_block),
        completes=lambda request: selection.commits_blocks(request) and not selection.puts_manifest(request),
        puts_file=lambda _: False,
        puts_manifest=lambda request: selection.commits_blocks(request) and selection.puts_manifest(request),
        aborts=lambda request: selection.lists_blocks(request) or selection.discards_blocks(request),
        claim_success=reply(201, b""),
    ),
    "gcs": StoreDialect(
        sends_part=_any_part(selection.sends_chunk),
        completes=selection.ends_chunks,
        puts_file=lambda request: selection.puts_object(request) and not selection.puts_google_manifest(request),
        puts_manifest=selection.puts_google_manifest,
        aborts=lambda request: request.method == "DELETE" and "upload_id=" in request.path,
        claim_success=reply(200, COMPLETED_GOOGLE),
        lists_uploads=False,
    ),
}
"""By the name of the store's service."""
