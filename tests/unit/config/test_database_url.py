"""DATABASE_URL, or its parts, with everything that Prisma accepts in it."""

import psycopg
import pytest

from config.database_url import LIBPQ, PoolLimits, check_host, check_parameters, read_address, write_url
from config.settings import Misconfigured, load
from config.urls import mask_password

AWKWARD = "p@ss/wo#rd?&=%25 :'\"\\+é漢"
PARTS = {
    "DATABASE_HOST": "db.example.com:5433",
    "DATABASE_USERNAME": "langfuse",
    "DATABASE_PASSWORD": AWKWARD,
    "DATABASE_NAME": "langfuse",
}


@pytest.mark.parametrize(
    ("url", "host", "port", "password"),
    [
        ("postgresql://u:p@h/db", "h", None, "p"),
        ("postgres://u:p%40x%2F@h:5433/db", "h", 5433, "p@x/"),
        ("postgresql://u:p@ss@h:5432/db", "h", 5432, "p@ss"),
        ("postgresql+psycopg://u:p@[::1]:5432/db", "::1", 5432, "p"),
        (" postgresql://u:p@h/db\n", "h", None, "p"),
        ("postgresql://u@tenant:p+q@h/db", "h", None, "p+q"),
        ("postgresql://h/db?user=u&password=p", "h", None, "p"),
    ],
)
def test_a_url_is_split_as_langfuse_splits_it(url: str, host: str, port: int | None, password: str) -> None:
    found = read_address(url).url

    assert (found.host, found.port, found.password, found.database) == (host, port, password, "db")
    assert found.drivername == "postgresql+psycopg"


def test_a_socket_and_several_hosts_are_for_libpq() -> None:
    socket = read_address("postgresql://u:p@localhost/db?host=/var/run/postgresql").url
    several = read_address("postgresql://u:p@one:5433,two/db?target_session_attrs=read-write").url

    assert (socket.host, dict(socket.query)) == (None, {"host": "/var/run/postgresql"})
    assert (several.host, several.query["host"]) == (None, ("one:5433", "two:5432"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim#1@h:5432/db",
        "postgresql://u:p@ss#geheim@h:5432/db",
        "postgresql://u:12/geheim@h:5432/db",
        "postgresql://u:12?geheim@h:5432/db",
        "postgresql://u:12?geheim=1@h:5432/db",
        "postgresql://u:geheim geheim@h:5432/db",
        "postgresql://u:geheim@h:port/db",
        "postgresql://u:geheim@h:99999/db",
        "postgresql://u:geheim@h|i/db",
        "postgresql://u:geheim/db",
        "postgresql://u:geheim@h/db#x",
        "geheim",
        "mysql://u:geheim@h/db",
        "sqlite:/geheim",
    ],
)
def test_what_is_no_url_is_refused_without_a_part_of_the_password(url: str) -> None:
    with pytest.raises(Misconfigured, match="DATABASE_URL: ") as raised:
        load({"DATABASE_URL": url})

    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    ("parameters", "passed"),
    [
        ("sslcert=server-ca.pem", {"sslrootcert": "server-ca.pem"}),
        ("sslcert=client.pem&sslkey=client.key", {"sslcert": "client.pem", "sslkey": "client.key"}),
        ("sslmode=require&sslaccept=strict", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("sslaccept=strict&sslcert=ca.pem", {"sslmode": "verify-full", "sslrootcert": "ca.pem"}),
        ("sslmode=require&sslaccept=accept_invalid_certs&sslcert=ca.pem", {"sslmode": "require"}),
        ("pgbouncer=true&statement_cache_size=0&socket_timeout=10", {}),
        ("connect_timeout=3&application_name=me", {"connect_timeout": "3", "application_name": "me"}),
        ("options=-c%20statement_timeout%3D0", {"options": "-c statement_timeout=0"}),
        ("schema=&sslmode=", {}),
    ],
)
def test_the_parameters_of_prisma_are_translated_for_libpq(parameters: str, passed: dict[str, str]) -> None:
    address = read_address(f"postgresql://u:p@h/db?{parameters}")

    assert dict(address.url.query) == passed
    assert address.schema is None


@pytest.mark.parametrize(
    ("parameters", "limits"),
    [
        ("connection_limit=40&pool_timeout=5", PoolLimits(40, 5)),
        ("connection_limit=1", PoolLimits(10)),
        ("pool_timeout=0&max_idle_connection_lifetime=0&max_connection_lifetime=0", PoolLimits()),
        ("max_idle_connection_lifetime=60&max_connection_lifetime=600", PoolLimits(lifetime_seconds=60)),
    ],
)
def test_the_limits_of_prisma_s_pool_are_those_of_ours(parameters: str, limits: PoolLimits) -> None:
    assert read_address(f"postgresql://u:p@h/db?{parameters}").pool == limits


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("sslidentity=client.p12", "sslidentity"),
        ("sslaccept=lax", "sslaccept that is neither strict nor accept_invalid_certs"),
        ("sslmode=verify", "sslmode that is not one of disable, allow"),
        ("sslmode=disable&sslaccept=strict", "sslmode=disable"),
        ("sslmode=verify-full&sslaccept=accept_invalid_certs", "sslmode=verify-full"),
        ("sslcert=a&sslrootcert=b", "sslcert and sslrootcert"),
        ("connection_limit=many", "connection_limit that is not a whole number"),
        ("conection_limit=5", "did you mean connection_limit?"),
        ("client_encoding=latin1", "client_encoding"),
    ],
)
def test_a_parameter_that_can_not_be_honoured_is_refused_by_name(parameters: str, reason: str) -> None:
    with pytest.raises(Misconfigured, match="DATABASE_URL: has ") as raised:
        load({"DATABASE_URL": f"postgresql://u:p@h/db?{parameters}"})

    assert reason in str(raised.value)


def test_libpq_knows_the_parameters_that_it_gets() -> None:
    known = {each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()}

    assert known >= LIBPQ


def test_the_parts_make_the_url_that_langfuse_makes() -> None:
    address = load({**PARTS, "DATABASE_ARGS": "schema=lf&sslmode=require"}).database_address

    assert (address.url.host, address.url.port, address.url.database) == ("db.example.com", 5433, "langfuse")
    assert (address.url.username, address.url.password) == ("langfuse", AWKWARD)
    assert (address.schema, dict(address.url.query)) == ("lf", {"sslmode": "require"})


def test_the_url_takes_precedence_over_its_parts() -> None:
    assert load({**PARTS, "DATABASE_URL": "postgresql://u:p@other/db"}).database.host == "other"


def test_missing_parts_are_named() -> None:
    assert load(PARTS, needs=["DATABASE_URL"]).database.host == "db.example.com"
    with pytest.raises(Misconfigured) as raised:
        load({"DATABASE_HOST": "db", "DATABASE_NAME": "langfuse"}, needs=["DATABASE_URL"])

    assert raised.value.problems == [
        "DATABASE_USERNAME is missing: DATABASE_HOST requires it without DATABASE_URL",
        "DATABASE_PASSWORD is missing: DATABASE_HOST requires it without DATABASE_URL",
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_HOST", "https://db"), ("DATABASE_HOST", "db:0"), ("DATABASE_ARGS", "pgbouncr=true")]
)
def test_a_wrong_part_is_named(name: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=f"^{name}: "):
        load({**PARTS, name: value})


def test_any_password_survives_the_url() -> None:
    assert read_address(write_url("h", "u", AWKWARD, "db", "")).url.password == AWKWARD
    assert check_host(" db:1 ") == "db:1"
    assert check_parameters("?sslmode=require") == "sslmode=require"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim@h/db",
        "postgresql://u@tenant:geh@eim@h/db",
        "postgresql://h/db?sslmode=require&password=geheim&schema=x",
        "password=geheim",
        "postgresql://u:p@h/db?sslkey=k&sslpassword=geheim",
    ],
)
def test_passwords_are_masked_wherever_they_are(url: str) -> None:
    masked = mask_password(url)

    assert "geh" not in masked
    assert "eim" not in masked
