"""Plays the steps of a workload through a kernel, to see what its compiles cost the requests."""

from tuner.replay.arms import Arm, make_arms, prebuilt_arm
from tuner.replay.outcome import DELAYED_MS, ArmReplay, Compile, Outcome, Spread
from tuner.replay.replay import Replay, play_arm

__all__ = [
    "DELAYED_MS",
    "Arm",
    "ArmReplay",
    "Compile",
    "Outcome",
    "Replay",
    "Spread",
    "make_arms",
    "play_arm",
    "prebuilt_arm",
]
