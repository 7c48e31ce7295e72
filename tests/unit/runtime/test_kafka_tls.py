import subprocess

import pytest

from config.settings import Misconfigured, load
from runtime.kafka_clients import client_config
from runtime.kafka_tls import build_context
from tests.support.certificates import make_authority

PASSWORD = "hush hush"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate with its key, also encrypted, another key, and a file that is neither."""
    folder = tmp_path_factory.mktemp("files")
    own, other = make_authority(folder / "own"), make_authority(folder / "other")
    encrypted, legacy, text = folder / "encrypted.key", folder / "legacy.key", folder / "text"
    for command in (
        ("pkcs8", "-topk8", "-in", own.key, "-out", encrypted, "-passout", f"pass:{PASSWORD}"),
        ("ec", "-aes256", "-in", own.key, "-out", legacy, "-passout", f"pass:{PASSWORD}"),
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    text.write_text("neither\n")
    paths = {
        "ca": own.file,
        "certificate": own.certificate,
        "key": own.key,
        "other": other.key,
        "encrypted": encrypted,
        "legacy": legacy,
        "text": text,
        "missing": folder / "missing",
        "folder": folder,
    }
    return {name: str(path) for name, path in paths.items()}


def settings_with(
    files: dict[str, str], certificate: str, key: str, password: str = "", ca: str = "ca"
) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CA_LOCATION": files[ca],
        "KAFKA_SSL_CERTIFICATE_LOCATION": files[certificate],
        "KAFKA_SSL_KEY_LOCATION": files[key],
        **({"KAFKA_SSL_KEY_PASSWORD": password} if password else {}),
    }


@pytest.mark.parametrize(
    ("key", "password"), [("key", ""), ("key", PASSWORD), ("encrypted", PASSWORD), ("legacy", PASSWORD)]
)
def test_both_clients_get_the_certificate(files: dict[str, str], key: str, password: str) -> None:
    settings = load(settings_with(files, "certificate", key, password))

    context, config = build_context(settings), client_config(settings)

    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert (config["ssl.certificate.location"], config["ssl.key.location"]) == (files["certificate"], files[key])
    assert config.get("ssl.key.password", "") == password


@pytest.mark.parametrize(
    ("certificate", "key", "password", "problem"),
    [
        ("missing", "key", "", "KAFKA_SSL_CERTIFICATE_LOCATION: the file {missing} can't be read (no such file or dir"),
        ("certificate", "missing", "", "KAFKA_SSL_KEY_LOCATION: the file {missing} can't be read"),
        ("folder", "key", "", "KAFKA_SSL_CERTIFICATE_LOCATION: the file {folder} can't be read (is a directory)"),
        ("text", "key", "", "KAFKA_SSL_CERTIFICATE_LOCATION: the file {text} contains no certificate in PEM format"),
        ("key", "key", "", "KAFKA_SSL_CERTIFICATE_LOCATION: the file {key} contains no certificate in PEM format"),
        ("certificate", "text", "", "KAFKA_SSL_KEY_LOCATION: the file {text} contains no private key in PEM format"),
        ("certificate", "certificate", "", "KAFKA_SSL_KEY_LOCATION: the file {certificate} contains no private key"),
        ("certificate", "other", "", "KAFKA_SSL_KEY_LOCATION: the key in {other} does not belong to the certificate"),
        ("certificate", "encrypted", "", "KAFKA_SSL_KEY_PASSWORD is missing: the key in {encrypted} is encrypted"),
        ("certificate", "encrypted", "no", "KAFKA_SSL_KEY_PASSWORD is wrong: the key in {encrypted} is encrypted"),
        ("certificate", "encrypted", "n" * 1025, "KAFKA_SSL_KEY_PASSWORD is wrong: no password has more than 1,024"),
        ("certificate", "legacy", "", "KAFKA_SSL_KEY_PASSWORD is missing: the key in {legacy} is encrypted"),
        ("certificate", "legacy", "no", "KAFKA_SSL_KEY_PASSWORD is wrong: the key in {legacy} is encrypted"),
    ],
)
def test_a_file_that_can_not_be_used_is_named_by_its_setting(
    files: dict[str, str], certificate: str, key: str, password: str, problem: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        client_config(load(settings_with(files, certificate, key, password)))

    (found,) = caught.value.problems
    assert found.startswith(problem.format(**files))


@pytest.mark.parametrize("ca", ["missing", "text"])
def test_an_authority_that_can_not_be_used_is_named_by_its_setting(files: dict[str, str], ca: str) -> None:
    with pytest.raises(Misconfigured, match=f"KAFKA_SSL_CA_LOCATION: the file {files[ca]}"):
        client_config(load(settings_with(files, "certificate", "key", ca=ca)))


@pytest.mark.parametrize("wrong", ["KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION"])
def test_a_url_instead_of_a_file_does_not_show_its_password(files: dict[str, str], wrong: str) -> None:
    with pytest.raises(Misconfigured, match=f"{wrong}: ") as caught:
        client_config(load(settings_with(files, "certificate", "key") | {wrong: "https://ada:hush@host.example"}))

    assert "hush" not in str(caught.value)
