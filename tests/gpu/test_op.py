"""The ops on a GPU: every element through the op, and everywhere that a serving engine calls them."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from op_examples import arguments_of, poisoned, storages

import tuner
from tuner import serving
from tuner.catalog import load_kernel
from tuner.errors import UserError
from tuner.runtime import dispatch
from tuner.runtime.op import Op
from tuner.verify.agreement import compare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or HIP device"),
]

FUSED = "fused_inv_rope_fp8_quant"
LARGEST = 2048
SIZES = {"num_heads": 64, "n_groups": 8}


@pytest.fixture(scope="module")
def op() -> Op:
    """The fused op, warmed up."""
    made = serving.load_op.__wrapped__(FUSED)
    report = made.warmup(max_num_tokens=LARGEST, **SIZES)
    assert report.binaries
    return made


@pytest.fixture
def fresh_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ops that are made now find bytes 0xFF in their outputs."""
    monkeypatch.setattr(dispatch, "_empty", poisoned(dispatch._empty))


@pytest.fixture
def nothing_compiles() -> Iterator[None]:
    with tuner.jit_monitor("error"):
        yield


def inputs(tokens: int, seed: int = 0) -> Mapping[str, torch.Tensor]:
    spec = load_kernel(FUSED).spec
    return spec.make_inputs(spec.shape({"num_tokens": tokens, **SIZES}), "cuda", seed)


def call(op: Op, tensors: Mapping[str, torch.Tensor]) -> Any:
    return op(tensors["o"], tensors["positions"], tensors["cos_sin_cache"], 8, 8)


def equal(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous().view(torch.uint8)

    return all(torch.equal(as_bytes(a), as_bytes(b)) for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures("fresh_outputs")
@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 19, 64, 130, 511, 1024, 4099])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        (FUSED, {"num_heads": 64, "n_groups": 8}),
        (FUSED, {"num_heads": 16, "n_groups": 2, "tma_aligned_scales": 1, "position_bits": 32}),
        (FUSED, {"num_heads": 8, "n_groups": 1, "scale_rounding": "none", "rope_style": "neox"}),
        ("rms_norm", {"hidden_size": 4096}),
        ("rms_norm", {"hidden_size": 7168}),
    ],
)
def test_every_element_is_right(name: str, sizes: dict[str, Any], tokens: int) -> None:
    kernel = load_kernel(name)
    op, shape = serving.load_op.__wrapped__(name), kernel.spec.shape({"num_tokens": tokens, **sizes})
    for make in (kernel.spec.make_inputs, *kernel.spec.edge_inputs.values()):
        tensors = make(shape, "cuda", tokens)
        positional, keywords = arguments_of(name, tensors, shape)
        outputs = storages(name, op(*positional, **keywords))
        agreement = compare(outputs, kernel.spec.reference(tensors, shape), kernel.spec.tolerances)
        assert agreement.mismatched == 0, agreement.detail
        assert agreement.elements == sum(each.numel() * _weight(each) for each in outputs.values())


def _weight(output: torch.Tensor) -> int:
    return 4 if output.dtype == torch.int32 else 1  # packed scales are held byte by byte


@pytest.mark.usefixtures("nothing_compiles")
def test_no_size_up_to_the_bound_compiles(op: Op) -> None:
    whole = inputs(LARGEST)
    for tokens in range(1, LARGEST + 1):
        call(op, {name: each if name == "cos_sin_cache" else each[:tokens] for name, each in whole.items()})
    torch.cuda.synchronize()
    assert op.counts["fallbacks"] == 0


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize("name", ["o", "positions", "cos_sin_cache"])
def test_unaligned_inputs_are_right_and_compile_nothing(op: Op, name: str) -> None:
    for tokens in (1, 8, 130, 1000):
        tensors = dict(inputs(tokens))
        expected = call(op, tensors)
        source = tensors[name].contiguous()
        moved = torch.empty(source.numel() + 1, dtype=source.dtype, device="cuda")[1:].view(source.shape)
        tensors[name] = moved.copy_(source)
        assert moved.data_ptr() % 16
        assert equal(call(op, tensors), expected)


def test_without_tokens_there_is_no_launch(op: Op) -> None:
    o_fp8, o_scale = call(op, inputs(0))
    assert (o_fp8.shape, o_scale.shape) == ((0, 8, 4096), (0, 8, 32))


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize("tokens", [8, 19, 300])
def test_a_captured_graph_replays_with_new_inputs(op: Op, tokens: int) -> None:
    tensors = dict(inputs(tokens))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call(op, tensors)
    for seed in (1, 2):
        fresh = inputs(tokens, seed)
        for name in ("o", "positions"):
            tensors[name].copy_(fresh[name])
        graph.replay()
        assert equal(captured, call(op, fresh))


def test_a_capture_that_needs_a_compile_is_refused() -> None:
    cold = serving.load_op.__wrapped__(FUSED)
    tensors, graph = inputs(8), torch.cuda.CUDAGraph()
    with pytest.raises(UserError, match="graph capture"), torch.cuda.graph(graph):
        call(cold, tensors)
    torch.cuda.synchronize()
    assert call(cold, tensors)[0].shape == (8, 8, 4096)


@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_into_a_full_graph(op: Op, dynamic: bool) -> None:
    def model(o: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor) -> Any:
        o_fp8, o_scale = op(o * 2, positions, cache, 8, 8)
        return o_fp8, o_scale * 1

    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    for tokens in (8, 19):
        tensors = inputs(tokens)
        arguments = (tensors["o"], tensors["positions"], tensors["cos_sin_cache"])
        assert equal(compiled(*arguments), model(*arguments))
    torch._dynamo.reset()


def test_inference_mode(op: Op) -> None:
    tensors = inputs(8)
    expected = call(op, tensors)
    with torch.inference_mode():
        assert equal(call(op, tensors), expected)


@pytest.mark.usefixtures("nothing_compiles")
def test_it_runs_on_the_current_stream(op: Op) -> None:
    tensors, stream = dict(inputs(64)), torch.cuda.Stream()
    expected = call(op, tensors)
    late = torch.zeros_like(tensors["o"])
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # on another stream the op would read zeros
        late.copy_(tensors["o"])
        found = call(op, {**tensors, "o": late})
    stream.synchronize()
    assert equal(found, expected)


@pytest.mark.usefixtures("nothing_compiles")
def test_threads_on_two_streams(op: Op) -> None:
    sizes = (1, 8, 19, 130, 511)
    tensors = {tokens: inputs(tokens) for tokens in sizes}
    expected = {tokens: call(op, each) for tokens, each in tensors.items()}
    torch.cuda.synchronize()
    streams, wrong = [torch.cuda.Stream() for _ in range(2)], []

    def work(number: int) -> None:
        with torch.cuda.stream(streams[number % 2]):
            for round_ in range(100):
                tokens = sizes[(number + round_) % len(sizes)]
                if not equal(call(op, tensors[tokens]), expected[tokens]):
                    wrong.append(tokens)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_it_runs_on_the_device_of_its_inputs(op: Op) -> None:
    tensors = inputs(19)
    expected = call(op, tensors)
    found = call(op, {name: each.to("cuda:1") for name, each in tensors.items()})
    assert {each.device.index for each in found} == {1}
    assert torch.cuda.current_device() == 0
    assert equal(tuple(each.to("cuda:0") for each in found), expected)


def test_inputs_on_the_cpu_are_told(op: Op) -> None:
    tensors = inputs(8)
    with pytest.raises(UserError, match="o is on cuda:0"):
        call(op, {**tensors, "positions": tensors["positions"].cpu()})
    with pytest.raises(UserError, match="expected a device of type 'cuda'"):
        call(op, {name: each.cpu() for name, each in tensors.items()})
