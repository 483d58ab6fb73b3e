"""A run's settings: ``config.json`` in its folder, with which a resumed run continues."""

import dataclasses
import hashlib
from functools import cached_property
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import read_json
from nucleus_course.config import (
    AugmentConfig,
    ModelConfig,
    Preset,
    StageConfig,
    Thresholds,
    TrainingConfig,
    UNetConfig,
    from_dict,
    to_dict,
)

NAME = "config.json"
LOOKED_AT = 8  # images whose mean grey value is kept, at most
GREY = 1.0  # a larger difference of that value means another image; decoders may differ a little


class RunConfig:
    """The contents of a run folder's config.json: ``values`` as JSON types, and as objects.

    ``preset``, ``stages`` and ``minutes`` raise :class:`UserError` if the file lacks them or another
    version wrote it.
    """

    def __init__(self, folder, values):
        self.folder, self.values = Path(folder), values

    @cached_property
    def preset(self):
        """The run's :class:`~nucleus_course.config.Preset`, including options."""
        model = (
            UNetConfig if self._read(lambda v: v["model"].get("kind")) == "unet" else ModelConfig
        )
        parts = {
            "model": model,
            "training": TrainingConfig,
            "augment": AugmentConfig,
            "thresholds": Thresholds,
        }
        found = self._read(
            lambda v: {name: from_dict(kind, v[name]) for name, kind in parts.items()}
        )
        return Preset(**found, summary=self.values.get("summary", ""))

    @property
    def stages(self):
        """The schedule's :class:`~nucleus_course.config.StageConfig`, scaled to the requested epochs."""
        return self._read(lambda v: tuple(from_dict(StageConfig, stage) for stage in v["stages"]))

    @property
    def minutes(self):
        """Total wall time, or None if epochs decide."""
        return self._read(lambda v: v.get("minutes"))

    @property
    def split(self):
        """Name or file of the split, or None if the images were listed in Python."""
        split = self.values.get("split")
        return None if split == "listed" else split

    def trained_on(self, dataset):
        """Whether a data set holds the same image ids as the run's."""
        if "ids_sha256" in self.values:
            return self.values["ids_sha256"] == _digest(dataset.ids)
        return self.values.get("images", len(dataset)) == len(dataset)

    def differs(self, dataset):
        """What differs between a data set and the run's with the same ids: a few words, "" if nothing is seen.

        Settings that the run folder lacks (from older versions) are not compared.
        """
        now = looks(dataset)
        was = self._read(lambda v: {name: v[name] for name in now if name in v})
        if was.get("contents_sha256", now.get("contents_sha256")) != now.get("contents_sha256"):
            return "sizes or numbers of nuclei differ"
        if "grey" not in was:
            return ""
        pairs = self._read(lambda v: [abs(float(a) - b) for a, b in zip(v["grey"], now["grey"])])
        return "brightness differs" if max(pairs, default=0.0) > GREY else ""

    def _read(self, get):
        try:
            return get(self.values)
        except UserError as error:
            raise UserError(f"{self.folder / NAME}: {error}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.folder / NAME} does not hold the settings of a run ({error!r}): start a new run"
            ) from None


def read_run_config(folder):
    """The :class:`RunConfig` of a run folder, or None if it has no config.json.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return None
    return RunConfig(folder, read_json(path, "correct it or start a new run"))


def length(stages, minutes):
    """The entries of config.json that a resumed run may change."""
    return {"stages": [to_dict(stage) for stage in stages], "minutes": minutes}


def describe(model, dataset, preset, stages, minutes, notes=None):
    """The contents of config.json as JSON types; ``notes`` are further entries."""
    # The model's thresholds, because its initial weights may have their own.
    preset = dataclasses.replace(preset, thresholds=model.thresholds)
    about = {
        "data": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "ids_sha256": _digest(dataset.ids),
        **looks(dataset),
    }
    return {
        **to_dict(preset),
        **length(stages, minutes),
        **about,
        "start": model.start,
        **(notes or {}),
    }


def looks(dataset):
    """Entries of config.json that tell other images under the same ids, or another channel of them.

    A digest of sizes and numbers of nuclei, and mean grey values of a few images. Nothing for a data set made in
    Python that has no sizes.
    """
    if not hasattr(dataset, "sizes"):
        return {}
    sizes, counts = dataset.sizes, dataset.counts
    lines = [f"{image_id} {sizes[image_id]} {counts[image_id]}" for image_id in dataset.ids]
    some = dataset.ids[:: -(-len(lines) // LOOKED_AT) or 1]
    grey = [round(float(dataset[image_id].image.mean()), 1) for image_id in some]
    return {"contents_sha256": _digest(lines), "grey": grey}


def _digest(ids):
    return hashlib.sha256("\n".join(map(str, ids)).encode("utf-8", "surrogateescape")).hexdigest()
