"""The arm that loads its binaries from a bundle: no compile in any step."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bundle_examples import FUSED, PLAIN, SIZES, TILE, small_bundle
from replay_examples import answer

from tuner.errors import UserError
from tuner.records import DEFAULT_TARGET, Shape, Variant
from tuner.replay import prebuilt_arm
from tuner.replay.player import ArmJob, Played, play
from tuner.runtime.bundle import Bundle

TOKENS = (5, 1, 16, 40, 48, 5, 0)


def shape(tokens: int) -> Shape:
    return FUSED.spec.shape({"num_tokens": tokens, **SIZES})


STEPS = tuple(map(shape, TOKENS))
VARIANTS = {each: TILE if each.size("num_tokens") >= 40 else PLAIN for each in STEPS}


@pytest.fixture(scope="module", autouse=True)
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(folder / "tuner"))
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        built = small_bundle(folder / "bundles")
        patch.setenv("TRITON_CACHE_DIR", str(folder / "empty"))
        yield built


def played(bundles: Path | None, variants: dict[Shape, Variant], target: bool = True) -> Played:
    found = play(ArmJob(FUSED.folder, STEPS, variants, (), DEFAULT_TARGET if target else None, 0, bundles))
    assert isinstance(found, Played), found
    return found


def test_it_runs_the_bundles_variants_and_the_answers_elsewhere(bundle: Bundle) -> None:
    other = FUSED.spec.shape({"num_tokens": 1, "num_heads": 16, "n_groups": 2})
    answers = {each: answer(each, FUSED.spec.baseline_variant, None) for each in (*STEPS, other)}
    arm = prebuilt_arm((*STEPS[:-1], other), "num_tokens", answers, bundle)
    expected = {each: variant for each, variant in VARIANTS.items() if each.size("num_tokens")}
    assert arm.variants == {**expected, other: FUSED.spec.baseline_variant}
    assert (arm.name, arm.warm_up, arm.bundles) == ("ours, prebuilt", True, bundle.folder.parent)


def test_steps_compile_nothing_and_have_times(bundle: Bundle) -> None:
    found = played(bundle.folder.parent, VARIANTS)
    assert found.builds == ()
    assert found.host_s == (0.0,) * len(STEPS)
    assert {each.size("num_tokens") for each, time_us in found.kernel_us.items() if time_us > 0} == {5, 1, 16, 40, 48}
    assert found.kernel_us == played(None, VARIANTS).kernel_us


def test_what_the_bundle_does_not_hold_is_compiled(bundle: Bundle) -> None:
    found = played(bundle.folder.parent, {**VARIANTS, shape(16): FUSED.spec.baseline_variant})
    assert [build.step for build in found.builds] == [2]


def test_a_bundle_that_a_server_would_refuse_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is refused \(missing\)"):
        play(ArmJob(FUSED.folder, STEPS, VARIANTS, (), DEFAULT_TARGET, 0, tmp_path))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs a GPU of cuda:90"
)
def test_on_a_gpu_no_launch_compiles(bundle: Bundle) -> None:
    found = played(bundle.folder.parent, VARIANTS, target=False)
    assert found.builds == ()
    assert all(time_us > 0 for each, time_us in found.kernel_us.items() if each.size("num_tokens"))
