"""The vLLM plugin, on a stand-in for vLLM whose op has the signature of the real one."""

import importlib
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from stub_driver import stub_driver

import tuner
from tuner import api, serving
from tuner.integrations import vllm as plugin

pytestmark = pytest.mark.triton

PACKAGES = ("models/deepseek_v4/common/ops", "v1/attention/ops/deepseek_v4_ops")
SIGNATURE = """(
    o: torch.Tensor,
    positions: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    n_groups: int,
    heads_per_group: int,
    nope_dim: int = 448,
    rope_dim: int = 64,
    quant_group_size: int = 128,
    tma_aligned_scales: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]"""
NAME = "fused_inv_rope_fp8_quant"


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its hook and the stand-in go after each test."""
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "tuner"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("TUNER_DB", f"sqlite:///{tmp_path / 'none.db'}")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    serving.load_op.cache_clear()  # an op keeps the driver of its first call
    api._read_tables.cache_clear()
    yield
    api._read_tables.cache_clear()
    serving.load_op.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        del sys.modules[name]


def stand_in(folder: Path, package: str, monkeypatch: pytest.MonkeyPatch, signature: str = SIGNATURE) -> str:
    """A package `vllm` with the op, its re-export and a model that imports it; the name of the op's package."""
    place = folder / "vllm"
    ops = place / package
    ops.mkdir(parents=True)
    for each in (ops, *ops.parents):
        if each != folder and folder in each.parents:
            (each / "__init__.py").touch()
    (ops / f"{NAME}.py").write_text(f"import torch\n\n\ndef {NAME}{signature}:\n    raise NotImplementedError\n")
    (ops / "__init__.py").write_text(f"from .{NAME} import {NAME}\n")
    dotted = "vllm." + package.replace("/", ".")
    (place / "model.py").write_text(f"from {dotted} import {NAME}\n\n\ndef run(*args):\n    return {NAME}(*args)\n")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    return dotted


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("late", [False, True])
def test_a_model_calls_the_tuned_op(
    package: str, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the plugin comes before the model, as in vLLM, or after it."""
    dotted = stand_in(tmp_path, package, monkeypatch)
    with caplog.at_level(logging.INFO, logger="tuner"):
        if not late:
            plugin.register()
            assert "vllm" not in sys.modules
        model = importlib.import_module("vllm.model")
        plugin.register()
        plugin.register()
    op = tuner.load_op(NAME)
    assert getattr(sys.modules[f"{dotted}.{NAME}"], NAME) is op
    assert getattr(sys.modules[dotted], NAME) is op
    assert [record.getMessage() for record in caplog.records] == [f"{dotted}.{NAME} is replaced by the tuned op."]
    with stub_driver() as stub:
        o_fp8, o_scale = model.run(
            torch.zeros(3, 8, 512, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.int64), torch.zeros(8, 64), 2, 4
        )
    assert (o_fp8.shape, o_scale.shape) == ((3, 2, 2048), (3, 2, 16))
    assert len(stub.launches) == 1


@pytest.mark.parametrize(
    "signature",
    [
        SIGNATURE.replace("= 128", "= 32"),
        SIGNATURE.replace("\n) ->", "\n    quantize: bool = True,\n) ->"),
        SIGNATURE.replace("\n) ->", "\n    *,\n    quantize: bool = True,\n) ->"),
        SIGNATURE.replace("    nope_dim: int = 448,\n", ""),
        SIGNATURE.replace("positions:", "position_ids:"),
    ],
)
def test_another_signature_is_left_alone_and_told_once(
    signature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dotted = stand_in(tmp_path, PACKAGES[0], monkeypatch, signature)
    plugin.register()
    module = importlib.import_module(f"{dotted}.{NAME}")
    assert isinstance(getattr(module, NAME), types.FunctionType)
    (record,) = caplog.records
    assert "is not replaced: its parameters are o, " in record.getMessage()


def test_a_module_without_the_function_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dotted = stand_in(tmp_path, PACKAGES[0], monkeypatch)
    folder = tmp_path / "vllm" / PACKAGES[0]
    (folder / "__init__.py").write_text("")
    (folder / f"{NAME}.py").write_text("")
    plugin.register()
    assert not hasattr(importlib.import_module(f"{dotted}.{NAME}"), NAME)
    assert [record.getMessage() for record in caplog.records] == [
        f"{dotted}.{NAME} is not replaced: the module has no function {NAME}."
    ]


def test_on_amd_the_op_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    dotted = stand_in(tmp_path, PACKAGES[0], monkeypatch)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    plugin.register()
    assert isinstance(getattr(importlib.import_module(f"{dotted}.{NAME}"), NAME), types.FunctionType)
    assert "AMD" in caplog.text


def test_an_op_that_cannot_be_loaded_keeps_no_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dotted = stand_in(tmp_path, PACKAGES[0], monkeypatch)

    def fail(_: str) -> None:
        raise RuntimeError("no such op")

    monkeypatch.setattr(tuner, "load_op", fail, raising=False)
    plugin.register()
    assert isinstance(getattr(importlib.import_module(f"{dotted}.{NAME}"), NAME), types.FunctionType)
    assert "is not replaced: RuntimeError: no such op." in caplog.text


def test_winners_that_cannot_be_read_leave_the_op(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Told when the model is loaded; the tuned op itself would tell at its first step."""
    dotted = stand_in(tmp_path, PACKAGES[0], monkeypatch)
    monkeypatch.setenv("TUNER_TABLE", str(tmp_path / "none.json"))
    plugin.register()
    assert isinstance(getattr(importlib.import_module(f"{dotted}.{NAME}"), NAME), types.FunctionType)
    assert f"{dotted}.{NAME} is not replaced: TableError: " in caplog.text
    assert "none.json cannot be read" in caplog.text


def test_odd_modules_keep_no_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A package without a spec, a blocked module and one that is none: the op is replaced everywhere else."""
    dotted = stand_in(tmp_path, PACKAGES[0], monkeypatch)
    package = importlib.import_module("vllm")
    importlib.import_module("vllm.model")
    monkeypatch.setattr(package, "__spec__", None)
    for name, module in (("vllm.blocked", None), ("vllm.odd", object()), (plugin.MODULES[1], None)):
        monkeypatch.setitem(sys.modules, name, module)
    plugin.register()
    op = tuner.load_op(NAME)
    assert getattr(sys.modules[f"{dotted}.{NAME}"], NAME) is getattr(sys.modules["vllm.model"], NAME) is op
    assert caplog.text == ""


def test_a_search_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: str) -> None:
        raise ValueError("no spec")

    monkeypatch.setattr(plugin, "find_spec", fail)
    plugin.register()
    assert [record.getMessage() for record in caplog.records] == [f"{NAME} is not replaced: ValueError: no spec."]


def test_without_vllm_one_line_is_all(caplog: pytest.LogCaptureFixture) -> None:
    before = [*sys.meta_path]
    plugin.register()
    assert [record.getMessage() for record in caplog.records] == [f"vLLM is not installed: {NAME} is not replaced."]
    assert sys.meta_path == before


def test_other_modules_of_vllm_are_imported_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, PACKAGES[0], monkeypatch)
    (tmp_path / "vllm" / "other.py").write_text("VALUE = 3\n")
    plugin.register()
    assert importlib.import_module("vllm.other").VALUE == 3
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("vllm.v1.attention")
