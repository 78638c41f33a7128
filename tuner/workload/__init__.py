"""Workloads: a request trace, served by a simulated engine, gives steps and how often each size of a step occurs."""

from tuner.workload.catalog import load_workload, workload_paths
from tuner.workload.document import read_workload, workload_text
from tuner.workload.requests import Request, first_requests, read_requests
from tuner.workload.scheduler import Settings, Step, schedule
from tuner.workload.summary import workload_summary
from tuner.workload.workload import ServedRequest, Source, Workload, build_workload

__all__ = [
    "Request",
    "ServedRequest",
    "Settings",
    "Source",
    "Step",
    "Workload",
    "build_workload",
    "first_requests",
    "load_workload",
    "read_requests",
    "read_workload",
    "schedule",
    "workload_paths",
    "workload_summary",
    "workload_text",
]
