"""Parses an email address once, strictly, into its local part and its domain."""

import re
import unicodedata
from dataclasses import dataclass

import idna

LOCAL_BYTES = 64
DOMAIN_CHARACTERS = 253
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+")
"""The characters of RFC 5322's `atext`, and all that are not ASCII (RFC 6531)."""

INVISIBLE = frozenset("CZ")
"""The Unicode categories that begin so are controls, formats, surrogates, unassigned characters and spaces."""


class NotAnAddress(ValueError):
    """The text is not one email address; the message says why, and contains no part of the text."""


@dataclass(frozen=True)
class EmailAddress:
    """An address as SMTP takes it: the local part as it was given, and the domain in ASCII."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def parse_address(given: str) -> EmailAddress:
    """Parse `local@domain`, which may have spaces around it; raises NotAnAddress.

    Quoted local parts, IP addresses, comments, names and trailing dots are refused. A domain that is not ASCII is
    encoded by IDNA 2008, without mappings that would make another ASCII domain of it. A local part that looks like an
    encoded word of RFC 2047 is refused, because some programs would decode it.
    """
    local, at, domain = given.strip(" ").partition("@")
    if not at:
        raise NotAnAddress("it has no @")
    if "@" in domain:
        raise NotAnAddress("it has more than one @")
    return EmailAddress(_check_local(local), _encode_domain(domain))


def _check_local(local: str) -> str:
    if len(local.encode(errors="replace")) > LOCAL_BYTES:
        raise NotAnAddress(f"the part before the @ is longer than {LOCAL_BYTES} bytes")
    if not all(ATOM.fullmatch(atom) for atom in local.split(".")):
        raise NotAnAddress("the part before the @ is empty, or has a character or a dot that is not allowed there")
    if any(unicodedata.category(each)[0] in INVISIBLE for each in local):
        raise NotAnAddress("the part before the @ has an invisible character")
    if "=?" in local:
        raise NotAnAddress("the part before the @ looks like an encoded word")
    return local


def _encode_domain(domain: str) -> str:
    if len(domain) > DOMAIN_CHARACTERS:
        raise NotAnAddress(f"the domain is longer than {DOMAIN_CHARACTERS} characters")
    labels = [_encode_label(label) for label in domain.split(".")]
    if labels[-1].isdecimal():
        raise NotAnAddress("the domain is an IP address or ends with a number")
    encoded = ".".join(labels)
    if len(encoded) > DOMAIN_CHARACTERS:
        raise NotAnAddress(f"the domain is longer than {DOMAIN_CHARACTERS} characters in its ASCII form")
    return encoded


def _encode_label(label: str) -> str:
    if label.isascii():
        if not LABEL.fullmatch(label):
            raise NotAnAddress("the domain is not valid: between dots only a-z, 0-9 and inner hyphens are allowed")
        return label
    lower = unicodedata.normalize("NFC", label.lower())
    if lower.isascii():
        # The Kelvin sign in lower case is a k: this would be another domain.
        raise NotAnAddress("the domain has a character that only looks like an ASCII one")
    try:
        return idna.alabel(lower).decode()
    except UnicodeError as error:  # idna's errors are its subclasses
        raise NotAnAddress("the domain is not valid (IDNA 2008)") from error
