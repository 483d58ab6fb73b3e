"""`nucleus-course benchmark`: speed on this machine."""

from nucleus_course.benchmark.runner import run_benchmark

__all__ = ["run_benchmark"]
