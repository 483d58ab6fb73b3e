"""Build hook: the weights that ship travel in the wheel, from data/weights/ to nucleus_course/_weights/."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        # An editable install finds data/weights/ in the checkout and needs no copy.
        if version == "editable":
            return
        weights = Path(self.root) / "data" / "weights"
        if weights.is_dir():
            build_data["force_include"][str(weights)] = "nucleus_course/_weights"
