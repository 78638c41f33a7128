"""The tuning loop."""

from tuner.session.compile_counts import CompileCounts
from tuner.session.request import RunRequest, find_workload, load_fitting_space, whole_shapes
from tuner.session.run import RunSummary, run

__all__ = ["CompileCounts", "RunRequest", "RunSummary", "find_workload", "load_fitting_space", "run", "whole_shapes"]
