"""`tuner run`: objectives, workloads and what is told of the search, on the smallest kernel without a GPU."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_examples import BUNDLED, EXAMPLE, Tuner

RUN = ("run", EXAMPLE, "--target", "cuda:90", "--trials", "8", "--jobs", "1", "--search", "grid")


pytestmark = pytest.mark.usefixtures("no_workers")


@pytest.fixture(autouse=True)
def triton_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def test_a_run_tells_what_it_left_out_what_it_shared_and_what_serving_costs(tuner: Tuner, tmp_path: Path) -> None:
    """`row_stride` is 128 at every shape."""
    words, db = (*RUN, "--trials", "4"), f"sqlite:///{tmp_path}/store.db"
    text = tuner(*words, "--objective", "pareto", "--db", db)
    assert text.code == 0, text
    assert "row_stride is not searched: it saves no compile, and marking it " in text.out
    assert "A step over all shapes alike" in text.out
    assert "Binary identity: " in text.out
    again = tuner(*words, "--objective", "serving", "--json", "--db", db)
    found = json.loads(again.out)
    assert found["evaluated"] == 0
    assert [row["compiles"] for row in found["winners"]["rows"]] == [1, 1]
    assert set(found["not_searched"]) == {"row_stride"}
    assert found["sharing"]["variants"] == 0
    assert found["serving"]["baseline"]["compiles"] == 2
    assert [each["compiles"] for each in found["serving"]["front"]][-1] == 1
    assert json.loads(tuner(*words, "--json", "--db", db).out)["serving"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--workload", "azure_cod"), ["Unknown workload 'azure_cod'", "did you mean 'azure_code'?"]),
        (("--workload", "azure_code"), ["'num_tokens'", "dynamic dimension of scale_rows: num_rows"]),
        (("--workload", "./nowhere.json"), ["nowhere.json"]),
        (("--objective", "speed"), ["'speed' is not one of 'latency', 'serving', 'pareto'"]),
        (("--plot", "front.html"), ["--plot", "--objective pareto or serving"]),
        (("--plot", "/nowhere/front.html", "--objective", "pareto"), ["/nowhere"]),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_spent(
    refused: Callable[..., str], tmp_path: Path, words: tuple[str, ...], told: list[str]
) -> None:
    if "/nowhere/front.html" in words:
        pytest.importorskip("plotly")
    db = tmp_path / "store.db"
    message = " ".join(refused(*RUN, *words, "--db", f"sqlite:///{db}").split())
    assert all(each in message for each in told), message
    assert not db.exists()


def test_steps_that_are_nowhere_near_the_shapes_are_told(refused: Callable[..., str], tmp_path: Path) -> None:
    shapes = ("--shapes", "num_tokens=65536 num_heads=8 n_groups=1")
    words = ("run", BUNDLED, "--target", "cuda:90", "--objective", "serving", *shapes, "--db", tmp_path / "store.db")
    assert "No step of the workload azure_conversation is near" in refused(*words)


def test_the_front_is_drawn(tuner: Tuner, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    words = (*RUN[:-4], "--jobs", "1", "--trials", "2", "--objective", "pareto", "--plot", tmp_path / "front.html")
    assert tuner(*words, "--db", f"sqlite:///{tmp_path}/store.db").code == 0
    assert "expected kernel time, estimated us" in (tmp_path / "front.html").read_text()
