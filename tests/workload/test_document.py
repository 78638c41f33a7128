"""The workload file: what is written is read back, and what is none is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from workload_examples import built, some_requests, some_settings

from tuner.errors import UserError
from tuner.workload import Request, Settings, load_workload, read_workload, workload_text


@settings(deadline=None, max_examples=50)
@given(some_requests.filter(bool), some_settings())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, requests: tuple[Request, ...], limits: Settings
) -> None:
    path = tmp_path_factory.mktemp("workload") / "small.json"
    workload = built(requests, limits)
    path.write_text(workload_text(workload), encoding="utf-8")
    assert read_workload(path) == workload
    assert workload_text(read_workload(path)) == workload_text(workload)


def test_the_columns_of_a_small_one() -> None:
    data = json.loads(workload_text(built()))
    assert data["num_tokens"] == [8, 5, 5, 2, 1]
    assert data["idle_us"] == [[4, 5000]]
    assert data["requests"] == [[0, 1], [0, 1], [500, 2], [9000, 4]]
    assert data["source"] == {"file": "trace.csv", "sha256": "00", "attribution": 'someone, "CC-BY"'}
    assert data["settings"]["max_num_seqs"] == 2
    assert len(data["assumptions"]) == 4


def changed(**fields: Any) -> str:
    """The text of a workload file with other fields; one that is None is left out."""
    data = {**json.loads(workload_text(built())), **fields}
    return json.dumps({name: value for name, value in data.items() if value is not None})


SMALL: dict[str, Any] = json.loads(workload_text(built()))["settings"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no workload: it has no schema version"),
        ("{}", "is no workload: it has no schema version"),
        (changed(schema=2), "has schema 2; this tuner reads 1.\nUpgrade tuner"),
        (changed(schema=True), "schema: Input should be a valid integer"),
        (changed(command=None), "command: Field required"),
        (changed(num_tokens=[]), "num_tokens: List should have at least 1 item"),
        (changed(num_tokens=[8, 5, 0, 2, 1]), "num_tokens.2: Input should be greater than or equal to 1"),
        (changed(num_tokens=[8, 5, "5", 2, 1]), "num_tokens.2: Input should be a valid integer"),
        (changed(num_tokens=[8, 5, 10**400, 2, 1]), "num_tokens.2: "),
        (changed(idle_us=[[5, 1]]), "idle_us names step 5 of 5"),
        (changed(requests=[[2**60, 1]]), "requests.0.0: Input should be less than"),
        (changed(requests=[[0, 5]]), "first token in step 5 of 5"),
        (changed(requests=[[0, 1], [0, 0]]), "its requests are not in order of arrival"),
        (changed(requests=[[1, 1], [0, 1]]), "its requests are not in order of arrival"),
        (changed(settings={**SMALL, "max_num_seqs": 9}), "expected at least max_num_seqs, 9.\nA step must"),
        (changed(settings={**SMALL, "max_num_seq": 9}), "settings.max_num_seq: Unexpected keyword argument"),
        (changed(note="new"), "note: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_workload_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_workload(str(path))
    assert str(caught.value).startswith(f"{path} ")
    assert told in str(caught.value)


def test_a_file_that_is_missing_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_workload(str(tmp_path / "missing.json"))
    (tmp_path / "binary.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not JSON"):
        load_workload(str(tmp_path / "binary.json"))
