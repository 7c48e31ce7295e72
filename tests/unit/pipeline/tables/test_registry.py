import pytest

from pipeline.tables import TABLES, TableDeclaration
from tests.oracle import expected
from tests.oracle.columns import columns_of
from tests.oracle.pools import CUTOFF
from tests.oracle.raw import CLICKHOUSE_TABLES, SQL_TABLES, World
from tests.support.tables import EVENT_VARIANTS

EMPTY = World(dict.fromkeys((*CLICKHOUSE_TABLES, *SQL_TABLES), ()))


def _expected_names(name: str) -> tuple[str, ...]:
    return expected.table_of(EMPTY, "p", name, CUTOFF).columns


def _names(table: TableDeclaration) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns)


def test_the_oracle_knows_every_table_and_no_other() -> None:
    assert set(expected.TABLES) == set(TABLES)
    assert sorted(expected.EVENTS_BACKED) == sorted(EVENT_VARIANTS)


@pytest.mark.parametrize("name", TABLES)
def test_a_file_has_the_columns_of_the_reference_in_their_order(name: str) -> None:
    assert _names(TABLES[name]) == _expected_names(name)


@pytest.mark.parametrize("name", EVENT_VARIANTS)
def test_a_table_of_events_has_the_same_columns(name: str) -> None:
    assert _names(EVENT_VARIANTS[name]) == _expected_names(name)


@pytest.mark.parametrize("name", TABLES)
def test_filters_and_sorts_know_the_columns_of_the_reference(name: str) -> None:
    declared = {each.id: (each.type, set(each.names), each.sortable) for each in TABLES[name].filterables}
    assert declared == {
        column.id: (column.type, set(column.names), column.sortable) for column in columns_of(name).values()
    }


@pytest.mark.parametrize("name", TABLES)
def test_a_name_stands_for_one_column(name: str) -> None:
    names = [said for each in TABLES[name].filterables for said in {each.id, *each.names}]
    assert sorted(names) == sorted(set(names))
