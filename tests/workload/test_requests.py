"""Reading traces."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.workload import Request, first_requests, read_requests

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"

Trace = Callable[[str], Path]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    def write(text: str) -> Path:
        path = tmp_path / "trace.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_times_count_from_the_first_arrival(trace: Trace) -> None:
    text = HEADER + GOOD + "2023-11-16 18:15:50.9951690,396,109\r\n" + "\n" + "2023-11-16 18:16:00,1,1"
    assert read_requests(trace(text)) == (Request(0, 374, 44), Request(4_314_579, 396, 109), Request(13_319_410, 1, 1))


def test_requests_are_in_order_of_arrival_and_ties_in_order_of_the_file(trace: Trace) -> None:
    rows = ["2023-11-16 18:15:47,1,1", "2023-11-16 18:15:46,2,1", "2023-11-16 18:15:47,3,1"]
    assert [each.prompt_tokens for each in read_requests(trace(HEADER + "\n".join(rows)))] == [2, 1, 3]


def test_other_columns_and_another_order_do_not_matter(trace: Trace) -> None:
    text = "\ufeffGeneratedTokens, model ,ContextTokens,TIMESTAMP\n7,a,5,2024-05-10 00:00:00.009930+00:00\n"
    assert read_requests(trace(text)) == (Request(0, 5, 7),)


def test_times_may_be_seconds(trace: Trace) -> None:
    text = HEADER + "1700000000.25,1,1\n1700000001.5,1,1\n"
    assert [each.arrival_us for each in read_requests(trace(text))] == [0, 1_250_000]


def test_a_time_without_a_zone_is_utc(trace: Trace) -> None:
    text = HEADER + "2024-05-10 01:00:00+01:00,1,1\n2024-05-10 00:00:01,1,1\n"
    assert read_requests(trace(text))[1].arrival_us == 1_000_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ":1: no column TIMESTAMP, ContextTokens, GeneratedTokens; expected the header TIMESTAMP,"),
        ("TIMESTAMP,ContextTokens\n", ":1: no column GeneratedTokens;"),
        (HEADER, " holds no requests; expected a row for each"),
        (HEADER + GOOD + "2023-11-16 18:15:46,374\n", ":3: 2 values; expected 3"),
        (HEADER + GOOD + GOOD + "yesterday,374,44\n", ":4: 'yesterday' is no time; expected one as 2023-11-16"),
        (HEADER + "nan,374,44\n", ":2: 'nan' is no time"),
        (HEADER + "1e300,374,44\n", ":2: '1e300' is no time"),
        (HEADER + "\n" + "2023-11-16 18:15:46,many,44\n", ":3: ContextTokens is 'many'; expected a whole number"),
        (HEADER + "2023-11-16 18:15:46,0,44\n", ":2: ContextTokens is '0'; expected a whole number from 1"),
        (HEADER + "2023-11-16 18:15:46,1,-4\n", ":2: GeneratedTokens is '-4'"),
        (HEADER + "2023-11-16 18:15:46,1,1_000\n", ":2: GeneratedTokens is '1_000'"),
        (HEADER + "2023-11-16 18:15:46,1,10000001\n", ":2: GeneratedTokens is '10000001'; expected"),
        (HEADER + "2023-11-16 18:15:46,1," + "9" * 5000, ":2: GeneratedTokens is '999"),
        (HEADER + "2023-11-16 18:15:46,1," + "9" * 200_000, ":2: field larger than field limit"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(trace: Trace, text: str, told: str) -> None:
    path = trace(text)
    with pytest.raises(UserError) as caught:
        read_requests(path)
    assert caught.value.message.startswith(f"{path}{told}")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_requests(tmp_path / "missing.csv")
    with pytest.raises(UserError, match="Is a directory"):
        read_requests(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_requests(tmp_path / "binary.csv")


def test_the_first_requests_by_number_and_by_time() -> None:
    requests = tuple(Request(second * 1_000_000, 1, 1) for second in range(5))
    assert first_requests(requests) == requests
    assert first_requests(requests, limit=2) == requests[:2]
    assert first_requests(requests, duration_s=3) == requests[:3]
    assert first_requests(requests, limit=2, duration_s=1) == requests[:1]
