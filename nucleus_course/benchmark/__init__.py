"""How fast it all is on this machine: `nucleus-course benchmark`."""

from nucleus_course.benchmark.runner import run_benchmark

__all__ = ["run_benchmark"]
