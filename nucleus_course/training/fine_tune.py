"""Fine-tuning on a few images: which are held out, the schedule, and mixing in old images.

A few images teach a trained network a new kind of image in minutes, but it may forget old ones. So some images are
left out for scoring, the trunk is frozen at first, rates are small, and old data may be mixed in.
"""

import dataclasses

from nucleus_course._util.errors import UserError
from nucleus_course.config import StageConfig
from nucleus_course.presets import get_preset

SHARE = 0.3  # share of a small set that is left out
TENTH = 40  # above this many images a tenth is enough, as in the named splits
OWN, OLD = "images at hand", "mixed in"


def left_out(ids):
    """The ids of a small set that are left out for scoring, evenly spread over the sorted ids.

    Three in ten up to 40 images, then a tenth but at least twelve; none of a single image.

    >>> left_out(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"])
    ('b', 'f', 'i')
    >>> left_out(["a", "b"])
    ('b',)
    """
    ids = sorted(ids)
    few = round(SHARE * min(len(ids), TENTH))
    count = max(few, len(ids) // 10, 1) if len(ids) > 1 else 0
    return tuple(ids[int((i + 0.5) * len(ids) / count)] for i in range(count))


def fine_tune_preset(config):
    """The :class:`~nucleus_course.config.Preset` for a trained model's config: heads first, then all at a small rate.

    It takes three minutes on two CPU cores. The augmentation is the preset's.
    """
    try:
        preset = get_preset(config.name)
    except UserError:  # a model of another name
        preset = get_preset("unet" if getattr(config, "kind", "") == "unet" else "compact")
    stages = (
        StageConfig("heads, trunk frozen", layers="heads", epochs=6, rate=5e-4, warmup_epochs=1),
        StageConfig("all, gently", layers="all", epochs=14, rate=2e-4, schedule="cosine", warmup_epochs=1),
    )  # fmt: skip
    if getattr(config, "kind", "") == "unet":
        stages = stages[1:]  # it has no separate trunk
    training = dataclasses.replace(
        preset.training, stages=stages, steps_per_epoch=12, ema=0.98, settle=0.0, balance_types=0.0,
        balance_by="types", type_factors={}, validate_every=0,
    )  # fmt: skip
    return dataclasses.replace(preset, model=config, training=training)


class Mixed:
    """New and old images as one data set for :class:`~nucleus_course.data.batches.TrainingBatches`.

    With ``balance_types`` of 1, as :meth:`preset` sets it, each of the two "types", :data:`OWN` and :data:`OLD`, gives
    half of the crops.
    """

    def __init__(self, own, old):
        self._parts = own, old
        self._places = [
            (part, i) for part, data in enumerate(self._parts) for i in range(len(data))
        ]
        self.ids = tuple(
            f"{('own', 'old')[part]}/{self._parts[part].ids[i]}" for part, i in self._places
        )
        self.types = {name: (OWN, OLD)[part] for name, (part, _) in zip(self.ids, self._places)}
        self.name, self.split = f"{own.name} with {old.name} mixed in", "listed"
        self.synthetic = own.synthetic

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, key):
        part, index = self._places[self.ids.index(key) if isinstance(key, str) else key]
        return self._parts[part][index]

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def preload(self, workers=None):
        """Decode both into memory; returns itself."""
        for part in self._parts:
            part.preload(workers)
        return self

    @staticmethod
    def preset(preset):
        """The preset, changed to draw half of the crops from each part."""
        return dataclasses.replace(
            preset, training=dataclasses.replace(preset.training, balance_types=1.0)
        )
