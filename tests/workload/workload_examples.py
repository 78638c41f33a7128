"""What the tests of workloads run on."""

from hypothesis import strategies as st

from tuner.workload import Request, Settings, Source, Workload, build_workload

SETTINGS = Settings(max_num_batched_tokens=8, max_num_seqs=2, step_base_ms=1, step_token_us=0)
REQUESTS = (Request(0, 10, 3), Request(0, 3, 1), Request(500, 4, 2), Request(9000, 1, 1))


def built(requests: tuple[Request, ...] = REQUESTS, settings: Settings = SETTINGS) -> Workload:
    """A workload of these requests."""
    return build_workload("small", requests, settings, Source("trace.csv", "00", 'someone, "CC-BY"'), "tuner")


@st.composite
def some_settings(draw: st.DrawFn) -> Settings:
    """Limits that random requests reach."""
    seqs = draw(st.integers(1, 6))
    budget = seqs + draw(st.integers(0, 20))
    return Settings(budget, seqs, draw(st.floats(0.001, 5)), draw(st.floats(0, 50)))


some_requests = st.lists(
    st.builds(Request, st.integers(0, 50_000), st.integers(1, 60), st.integers(1, 12)), max_size=30
).map(lambda requests: tuple(sorted(requests, key=lambda each: each.arrival_us)))
