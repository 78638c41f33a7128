"""`benchmarks/counters.py` without a GPU: what it reads of Nsight Compute's CSV, and how it asks for it."""

import sys
from pathlib import Path

import pytest

from benchmarks import counters

HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device",'
    '"CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)
KERNELS = ("fused_inv_rope_fp8_quant_kernel", "fused_inv_rope_fp8_quant_per_head_kernel", "void add<4, float>(int, T2)")


def sample(launches: int = 9) -> str:
    """Three launches of each arm; launch n reads n GB and misses its hit rate when n is 4."""
    lines = ["==PROF== Connected to process 812 (/usr/bin/python3)", '==PROF== Profiling "a": 0%....100% - 3 passes']
    lines += ["==PROF== Disconnected from process 812", HEADER]
    for number in range(launches):
        where = f'"{number}","812","python3","127.0.0.1","{KERNELS[number // 3]}","1","7","(64, 1, 1)","(512, 1, 1)"'
        values = {
            "dram__bytes_read.sum": ("byte", f"{number},000,000,128"),
            "dram__bytes_write.sum": ("byte", "134,217,728"),
            "dram__throughput.avg.pct_of_peak_sustained_elapsed": ("%", f"{90 + number / 10}"),
            "gpu__time_duration.sum": ("ns", "272,160"),
            "lts__t_sector_hit_rate.pct": ("", "n/a") if number == 4 else ("%", f"{40 + number}.5"),
            "sm__warps_active.avg.pct_of_peak_sustained_active": ("%", "61.20"),
        }
        for metric, (unit, value) in values.items():
            lines.append(f'{where},"0","9.0","Command line profiler metrics","{metric}","{unit}","{value}"')
    return "\n".join(lines) + "\n"


def test_each_arm_has_the_median_of_its_launches() -> None:
    found = counters.by_arm(counters.parse(sample()))
    assert list(found) == ["ours", "baseline", "stream"]
    assert found["ours"] == {
        "dram_percent": 90.1,
        "read_bytes": 1_000_000_128.0,
        "written_bytes": 134_217_728.0,
        "l2_hit_percent": 41.5,
        "active_warps_percent": 61.2,
        "time_ns": 272_160.0,
    }
    assert found["stream"]["read_bytes"] == 7_000_000_128.0
    assert found["baseline"]["l2_hit_percent"] == 44.5  # of the two that could be read: 43.5 and 45.5
    assert counters.line("ours", found["ours"]) == (
        "ours: 272.2 us, DRAM at 90.1% of its peak, 1000.0 MB read, 134.2 MB written, L2 hits 41.5%, active warps 61.2%"
    )


def test_what_could_not_be_read_is_no_number() -> None:
    found = counters.by_arm(counters.parse(sample().replace("61.20", "n/a")))
    assert found["ours"]["active_warps_percent"] is None
    assert counters.line("ours", found["ours"]).endswith("active warps n/a%")


def test_missing_launches_end_the_program_with_what_ncu_said() -> None:
    with pytest.raises(SystemExit, match="reports 8 launches; expected 9"):
        counters.parse(sample(8))
    with pytest.raises(SystemExit, match="ERR_NVGPUCTRPERM"):
        counters.parse("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """An `ncu` that writes the sample to its log, keeps its arguments and exits with a code."""
    (folder / "sample.csv").write_text(sample())
    script = folder / "ncu"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        "here = pathlib.Path(__file__).parent\n"
        "shutil.copy(here / 'sample.csv', sys.argv[sys.argv.index('--log-file') + 1])\n"
        "(here / 'arguments').write_text('\\n'.join(sys.argv[1:]))\n"
        f"sys.exit({code})\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_ncu_runs_this_script_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(tmp_path, monkeypatch, 0)
    assert counters.profile(["--tokens", "512"], "cold") == sample()
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-5:] == [sys.executable, counters.__file__, "--tokens", "512", "--profiled"]
    assert arguments[arguments.index("--cache-control") + 1] == "all"
    assert arguments[arguments.index("--profile-from-start") + 1] == "off"
    assert "dram__bytes_read.sum" in arguments[arguments.index("--metrics") + 1].split(",")


def test_a_failure_of_ncu_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(tmp_path, monkeypatch, 3)
    with pytest.raises(SystemExit, match="ncu exits with 3"):
        counters.profile([], "warm")
    (tmp_path / "ncu").unlink()
    with pytest.raises(SystemExit, match="on the PATH"):
        counters.profile([], "warm")
