import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.errors import Unavailable
from runtime import oauth
from runtime.oauth import DEFAULT_LIFETIME, TokenEndpoint, fetch_token
from tests.services.process import free_port
from tests.support.certificates import make_authority
from tests.support.http_proxy import http_proxy
from tests.support.token_issuer import CLIENT, REFRESH, SECRET, TokenIssuer, refusal, token_issuer

NOW = 1_000.0


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with token_issuer() as running:
        yield running


def endpoint(url: str, client: str = CLIENT, secret: str | None = SECRET, **changes: str) -> TokenEndpoint:
    return TokenEndpoint(url, client, secret, "THE", **changes)


def answer_with(issuer: TokenIssuer, status: int, body: object) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    issuer.answer = lambda _: (status, content)


def test_a_token_is_fetched_with_the_credentials_of_the_client(issuer: TokenIssuer) -> None:
    token = fetch_token(endpoint(issuer.token_url, scope="kafka"), NOW)

    (request,) = issuer.requests
    assert request.login == (CLIENT, SECRET)
    assert request.form == {"grant_type": "client_credentials", "scope": "kafka"}
    assert token.value.count(".") == 2
    assert (token.expires_at, token.lifetime) == (NOW + issuer.lifetime, issuer.lifetime)


def test_credentials_are_sent_in_the_body_to_an_endpoint_that_reads_them_there(issuer: TokenIssuer) -> None:
    issuer.in_body = True

    fetch_token(endpoint(issuer.token_url), NOW)

    assert [each.login for each in issuer.requests] == [(CLIENT, SECRET), None]


def test_a_refresh_token_is_exchanged(issuer: TokenIssuer) -> None:
    fetch_token(endpoint(issuer.token_url, refresh_token=REFRESH), NOW)

    assert issuer.requests[0].form == {"grant_type": "refresh_token", "refresh_token": REFRESH}


def test_a_client_without_a_secret_names_itself(issuer: TokenIssuer) -> None:
    answer_with(issuer, 200, {"access_token": "abc"})

    fetch_token(endpoint(issuer.token_url, secret=None, refresh_token=REFRESH), NOW)

    assert (issuer.requests[0].login, issuer.requests[0].form["client_id"]) == (None, CLIENT)


@pytest.mark.parametrize(
    ("given", "lifetime"),
    [(3599, 3599), ("3599", 3599), (12.5, 12.5), (None, DEFAULT_LIFETIME), ("soon", DEFAULT_LIFETIME), (10**400, 60)],
)
def test_the_lifetime_may_be_a_number_a_text_or_missing(issuer: TokenIssuer, given: object, lifetime: float) -> None:
    answer_with(issuer, 200, {"access_token": "abc", "expires_in": given})

    assert fetch_token(endpoint(issuer.token_url), NOW).lifetime == lifetime


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"error": "invalid_client"}, r"rejects the client \(401 invalid_client\): are THE_CLIENT_ID and THE_CLI"),
        (401, b"<html>", r"rejects the client \(401\): are THE_CLIENT_ID and THE_CLIENT_SECRET right\?"),
        (400, {"error": "invalid_client"}, r"rejects the client \(400 invalid_client\)"),
        (400, {"error": "invalid_scope"}, r"rejects the scope \(400 invalid_scope\): is THE_SCOPE right\?"),
        (400, {"error": "invalid_grant"}, r"rejects the refresh token .*: is THE_REFRESH_TOKEN still valid\?"),
        (400, {"error": "unauthorized_client"}, r"refuses the grant refresh_token .*: may THE_CLIENT_ID use it\?"),
        (400, {"error": "Secret: hunter2"}, r"answered 400: is THE_TOKEN_ENDPOINT_URL that of a token endpoint\?"),
        (404, b"not found", r"answered 404: is THE_TOKEN_ENDPOINT_URL that of a token endpoint\?"),
        (302, b"http://127.0.0.1:1/", r"answered 302: is THE_TOKEN_ENDPOINT_URL that of a token endpoint\?"),
        (429, b"", r"is unavailable \(429\)"),
        (503, b"", r"is unavailable \(503\)"),
        (200, b"<html>login</html>", "answered without a token: is THE_TOKEN_ENDPOINT_URL that of a token endpoint"),
        (200, b"[" * 100_000, "answered without a token"),
        (200, ["access_token"], "answered without a token"),
        (200, {"access_token": 7}, "answered without a token"),
        (200, {"access_token": ""}, "answered without a token"),
        (200, {"access_token": "abc\x01auth=Bearer def"}, "answered without a token"),
        (200, {"access_token": "abc\r\nRSET"}, "answered without a token"),
        (200, {"access_token": "tökén"}, "answered without a token"),
        (200, {"access_token": "abc", "expires_in": 0}, "answered with a token that has expired"),
        (200, {"access_token": "abc", "expires_in": -5}, "answered with a token that has expired"),
        (200, b'{"access_token": "' + b"a" * 2_000_000 + b'"}', "answered without a token"),
    ],
)
def test_every_answer_without_a_token_is_explained_by_the_settings(
    issuer: TokenIssuer, status: int, body: object, said: str
) -> None:
    answer_with(issuer, status, body)

    with pytest.raises(Unavailable, match=said) as caught:
        fetch_token(endpoint(issuer.token_url, refresh_token=REFRESH), NOW)

    host = issuer.url.removeprefix("http://")
    assert str(caught.value).startswith(f"the token endpoint {host} ")
    assert "hunter2" not in str(caught.value)


def test_what_an_endpoint_says_about_a_refusal_is_not_repeated(issuer: TokenIssuer) -> None:
    issuer.answer = lambda _: refusal(400, "invalid_scope")

    with pytest.raises(Unavailable) as caught:
        fetch_token(endpoint(issuer.token_url), NOW)

    assert SECRET not in str(caught.value)


def test_a_redirect_does_not_get_the_secret(issuer: TokenIssuer) -> None:
    with token_issuer() as other:
        answer_with(issuer, 307, other.token_url.encode())
        with pytest.raises(Unavailable, match="answered 307"):
            fetch_token(endpoint(issuer.token_url), NOW)

        assert other.requests == []


def test_an_endpoint_that_is_down_is_explained() -> None:
    with pytest.raises(Unavailable, match=r"is unavailable \(connection refused\): is THE_TOKEN_ENDPOINT_URL right\?"):
        fetch_token(endpoint(f"http://127.0.0.1:{free_port()}/token"), NOW)


def test_a_host_that_does_not_exist_is_explained() -> None:
    with pytest.raises(Unavailable, match=r"is unavailable \(the host name can't be resolved\)"):
        fetch_token(endpoint("http://nowhere.invalid/token"), NOW)


def test_a_host_that_can_not_exist_is_explained() -> None:
    with pytest.raises(Unavailable, match="is THE_TOKEN_ENDPOINT_URL right"):
        fetch_token(endpoint("http://xn--/token"), NOW)


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"])
def test_an_endpoint_that_does_not_finish_its_answer_is_explained(
    monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(oauth, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(beginning)
                while not stop.wait(0.05) and beginning:
                    connection.sendall(b" ")  # each byte would restart the timeout of a socket
                stop.wait(20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(Unavailable, match=r"is unavailable \(timeout\)"):
            fetch_token(endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/"), NOW)
        stop.set()
        thread.join(20)


def test_rubbish_instead_of_http_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.test ESMTP\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(Unavailable, match="is unavailable"):
            fetch_token(endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/"), NOW)
        thread.join(20)


def test_a_private_authority_is_trusted_by_the_file_of_ssl_cert_file(
    issuer: TokenIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate, authority.key)
    with http_proxy(issuer.url, context) as proxy:
        with pytest.raises(Unavailable, match="the certificate is not trusted"):
            fetch_token(endpoint(f"{proxy.url}/token/"), NOW)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

        assert fetch_token(endpoint(f"{proxy.url}/token/"), NOW).value


def test_secrets_are_not_in_the_repr() -> None:
    assert SECRET not in repr(endpoint("http://x", refresh_token="hush"))
    assert "hush" not in repr(endpoint("http://x", refresh_token="hush"))
