from itertools import count

from coarseloc.core.types import batches


def test_rows_come_in_order_and_the_last_batch_holds_what_is_left():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_no_row_makes_no_batch():
    assert list(batches([], 3)) == []


def test_rows_are_read_only_as_batches_are_asked_for():
    rows = count()
    assert next(batches(rows, 3)) == [0, 1, 2]
    assert next(rows) == 3
