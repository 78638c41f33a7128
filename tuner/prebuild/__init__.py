"""Compiles ahead, on a machine without a GPU, what a server will launch."""

from tuner.prebuild.prebuild import Prebuild, build_bundle, write_bundle

__all__ = ["Prebuild", "build_bundle", "write_bundle"]
