import base64
import string
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.links import Links, read_links
from config.settings import load

SETTINGS = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
KEY, OTHER = b"k" * 32, b"o" * 32
LINKS = Links("https://exports.example.com/base", [KEY])
IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=80)
NEW = "zPtU4x62x8eFJ1yrG9FtukgLLXEndPgqusP4jM6tH_Fb3ZvoKkT42gqdO_5Ua_Ri"
OLD = {
    "q8SqagpNzlECQytFXXGq_5jJqGLFxHary27FPJ7dbJkMWkxBgYGer_Hwga3WF1qk": ("project-1", "export-1"),
    "xt9kkDlj7VLG3SdXulZAj71mPX-lMlJrt3l7v7Jrqll-P-TbK3KaJnFUzj-ggHU7lNZ8_Y4oBe3SyDgUldZ9VA": (
        "acme-corporation",
        "export-of-salaries",
    ),
    "K7d4lRJrupjjMESOa4G6ZPibsCrka3v28dld1PvR4jYEIPb6zPuRmJU5F92sAQnCxUSB-keOSJjmJ6sQuvZBsg": (
        "prøject",
        "cmf7xqk2n0001ad07h8s9z3yb",
    ),
}
"""Tokens that were written with KEY before AES-SIV."""

OLD_OF_OTHER = "Y2WrK-eKURsL0qwfJMwThFnGVriiEQFnYhxhTCyFAr4I-i45krCt0YpXhHaWZqhz"
URL_SAFE = string.ascii_letters + string.digits + "-_"


def token(project_id: str = "project-1", export_id: str = "export-1", links: Links = LINKS) -> str:
    return links.write(project_id, export_id).rpartition("/")[2]


@SETTINGS
@given(IDS, IDS)
def test_a_written_link_is_read_back(project_id: str, export_id: str) -> None:
    url = LINKS.write(project_id, export_id)

    assert url.startswith("https://exports.example.com/base/d/")
    assert set(url.rpartition("/")[2]) <= set(URL_SAFE)
    assert LINKS.read(url.rpartition("/")[2]) == (project_id, export_id)


@SETTINGS
@given(st.data())
def test_a_token_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    whole = token(data.draw(IDS), data.draw(IDS))
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.sampled_from(sorted(set(string.printable + "é\0") - {whole[at]})))

    assert LINKS.read(whole[:at] + other + whole[at + 1 :]) is None


@SETTINGS
@given(st.data())
def test_a_token_with_any_bit_of_its_bytes_flipped_is_refused(data: st.DataObject) -> None:
    raw = bytearray(base64.urlsafe_b64decode(token(data.draw(IDS), data.draw(IDS)) + "=="))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    assert LINKS.read(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) is None


@SETTINGS
@given(IDS, IDS, st.integers(0, 400), st.text(URL_SAFE + "=", max_size=40))
def test_a_truncated_or_extended_token_is_refused(project_id: str, export_id: str, length: int, more: str) -> None:
    whole = token(project_id, export_id)
    given = whole[:length] + more

    assert (LINKS.read(given) is not None) == (given == whole)


@SETTINGS
@given(st.text(max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    assert LINKS.read(text) is None


@SETTINGS
@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(raw: bytes) -> None:
    assert LINKS.read(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) is None


@SETTINGS
@given(IDS, IDS, IDS, st.integers(0, 200))
def test_parts_of_two_tokens_make_none(project_id: str, one: str, two: str, at: int) -> None:
    first, second = token(project_id, one), token(project_id, two)
    mixed = first[:at] + second[at:]

    assert LINKS.read(mixed) in {None, (project_id, one), (project_id, two)}
    assert (LINKS.read(mixed) is None) == (mixed not in {first, second})


@SETTINGS
@given(IDS, IDS)
def test_the_boundary_between_the_two_ids_is_kept(one: str, two: str) -> None:
    assert LINKS.read(token(one + two, "x")) == (one + two, "x")
    assert token(one, two + "x") != token(one + two, "x")


def test_a_token_does_not_reveal_its_ids() -> None:
    told = token("acme-corporation", "export-of-salaries")
    raw = base64.urlsafe_b64decode(told + "==")

    assert all(word not in text for word in (b"acme", b"export", b"salar") for text in (told.encode(), raw))
    # Tokens of similar ids share no part.
    other = base64.urlsafe_b64decode(token("acme-corporation", "export-of-salariet") + "==")
    assert sum(one == two for one, two in zip(raw, other, strict=True)) < 8
    assert len(token("a", "b")) == len(token("a" * 7, "b" * 8))


def test_the_first_key_writes_and_all_keys_read() -> None:
    old, rotated, new = Links("https://x", [OTHER]), Links("https://x", [KEY, OTHER]), Links("https://x", [KEY])

    assert rotated.read(token(links=old)) == ("project-1", "export-1")
    assert new.read(token(links=rotated)) == ("project-1", "export-1")
    assert new.read(token(links=old)) is None
    assert old.read(token(links=new)) is None


def test_a_token_that_is_too_long_is_not_decoded() -> None:
    assert LINKS.read(token("p" * 512, "ü" * 512)) == ("p" * 512, "ü" * 512)
    assert LINKS.read("A" * 10_000_000) is None


def test_links_start_with_the_public_url_of_the_settings() -> None:
    assert read_links(load({"WAYBILL_SECRET_KEY": "k" * 32})) is None
    links = read_links(
        load({"WAYBILL_PUBLIC_URL": "https://x.example/", "WAYBILL_SECRET_KEY": f"{'a' * 32}, {'k' * 32}"})
    )

    assert links is not None
    assert links.write("p", "e").startswith("https://x.example/d/")
    assert links.read(token("p", "e")) == ("p", "e")


@pytest.mark.parametrize("token", ["", "A", "é", "\0", "AA==", "\ud800"])
def test_malformed_tokens_are_refused(token: str) -> None:
    assert LINKS.read(token) is None


def test_the_same_export_always_has_the_same_link() -> None:
    assert Links("https://exports.example.com/base", [KEY]).write("project-1", "export-1") == (
        f"https://exports.example.com/base/d/{NEW}"
    )


@pytest.mark.parametrize(("old", "ids"), OLD.items())
def test_a_link_that_was_sent_before_aes_siv_opens(old: str, ids: tuple[str, str]) -> None:
    assert LINKS.read(old) == ids
    assert token(*ids) != old


def test_a_link_that_was_sent_before_aes_siv_opens_with_any_of_the_keys() -> None:
    assert Links("https://x", [KEY, OTHER]).read(OLD_OF_OTHER) == ("project-1", "export-1")
    assert LINKS.read(OLD_OF_OTHER) is None


@pytest.mark.parametrize("whole", OLD)
def test_an_old_link_that_was_changed_is_refused(whole: str) -> None:
    raw = base64.urlsafe_b64decode(whole + "==")
    flipped = (raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] for at, bit in product(range(len(raw)), range(8)))

    assert [each for each in flipped if LINKS.read(base64.urlsafe_b64encode(each).rstrip(b"=").decode())] == []
    assert [whole[:length] for length in range(len(whole)) if LINKS.read(whole[:length])] == []
    assert [more for more in ("=", "A", " ", "\n") if LINKS.read(whole + more)] == []


def test_parts_of_two_old_links_make_none() -> None:
    mixed = [one[:at] + two[at:] for one, two in product(OLD, repeat=2) for at in range(len(one))]

    assert {each for each in mixed if LINKS.read(each)} == set(OLD)


def test_parts_of_an_old_and_a_new_link_make_none() -> None:
    old = next(iter(OLD))
    mixed = [one[:at] + two[at:] for one, two in ((old, NEW), (NEW, old)) for at in range(len(old))]

    assert {each for each in mixed if LINKS.read(each)} == {old, NEW}
