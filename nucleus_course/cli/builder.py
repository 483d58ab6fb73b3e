"""The model of a recipe, with its initial weights."""

from __future__ import annotations

import dataclasses

from nucleus_course.cli import common
from nucleus_course.cli.recipe import Recipe

FROZEN = (
    "warning: {preset} keeps the BatchNorm statistics of the weights it starts from, and there are none: losses will be huge. "
    "Start from --weights coco or imagenet, or choose a preset ending in -scratch, in which BatchNorm learns"
)


class Builder:
    """Makes the model of a recipe, with its initial weights."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.found = recipe, None
        if recipe.weights is not None:
            from nucleus_course.models.weights import importers

            self.found = importers.locate(recipe.weights, recipe.preset.model)
            config = importers.adapted(recipe.preset.model, self.found[1])
            recipe.preset = dataclasses.replace(recipe.preset, model=config)
        elif not recipe.whole and not getattr(recipe.preset.model, "train_norm", True):
            common.note(FROZEN.format(preset=recipe.preset.name))

    def __call__(self, preset=None, quiet: bool = True):
        import keras

        from nucleus_course.prediction.segmenter import build

        preset = preset or self.recipe.preset
        keras.utils.set_random_seed(preset.training.seed)  # the initial weights
        options = {"dtype_policy": preset.training.dtype, "seed": preset.training.seed}
        model = build(preset.model, preset.thresholds, **options)
        if self.found is not None:
            model.start_from(*self.found, self.recipe.weights)
            if not quiet:
                common.note(str(model.load_report))
        return model
