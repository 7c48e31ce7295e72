"""Reads the certificates of Kafka connections, and says which setting is wrong if one can't be used."""

import ssl
from pathlib import Path

from config.settings import Misconfigured, Settings
from config.settings_kafka import CERTIFICATE, KEY, KEY_PASSWORD
from config.urls import mask_password


def find_authorities(settings: Settings) -> str | None:
    """Return the file with the authorities that may have signed the brokers' certificates; None means the system's.

    librdkafka does not read SSL_CERT_FILE.
    """
    return settings.kafka_ssl_ca_location or settings.ssl_cert_file


def build_context(settings: Settings) -> ssl.SSLContext:
    """Build the TLS context of a client from the files of the settings; raises Misconfigured if one can't be used."""
    certificate, key = settings.kafka_ssl_certificate_location, settings.kafka_ssl_key_location
    for setting, file in ((CERTIFICATE, certificate), (KEY, key)):
        _check_readable(setting, file)
    context = ssl.create_default_context(cafile=find_authorities(settings))
    if certificate is not None and key is not None:
        _check_certificate(certificate)
        password = settings.kafka_ssl_key_password
        _load_key(context, certificate, key, password.get_secret_value() if password is not None else None)
    return context


def check_files(settings: Settings) -> None:
    """Raise Misconfigured if a file that TLS needs can't be used: librdkafka would not name the setting."""
    if settings.kafka_security_protocol.endswith("SSL"):
        build_context(settings)


def _check_readable(setting: str, file: str | None) -> None:
    if file is None:
        return
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise Misconfigured([f"{setting}: the file {mask_password(file)} can't be read ({reason})"]) from error


def _check_certificate(file: str) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise Misconfigured([f"{CERTIFICATE}: the file {file} contains no certificate in PEM format"]) from error


def _load_key(context: ssl.SSLContext, certificate: str, key: str, password: str | None) -> None:
    try:
        # Without a function, OpenSSL would ask for the password on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: password or "")
    except ValueError as error:
        raise Misconfigured([f"{KEY_PASSWORD} is wrong: no password has more than 1,024 bytes"]) from error
    except ssl.SSLError as error:
        raise Misconfigured([_explain_key(key, password, error.reason or "")]) from error


def _explain_key(key: str, password: str | None, reason: str) -> str:
    if reason == "KEY_VALUES_MISMATCH":
        return f"{KEY}: the key in {key} does not belong to the certificate of {CERTIFICATE}"
    if "ENCRYPTED" in Path(key).read_text(errors="replace"):
        what = "is missing" if password is None else "is wrong"
        return f"{KEY_PASSWORD} {what}: the key in {key} is encrypted"
    return f"{KEY}: the file {key} contains no private key in PEM format"
