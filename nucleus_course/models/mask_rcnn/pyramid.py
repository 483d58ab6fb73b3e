"""The feature pyramid (Lin et al. 2017): combines the semantics of coarse maps with the resolution of fine ones."""

import keras
from keras import layers


def build_pyramid(config, stage_channels, dtype="float32"):
    """[C2, C3, C4, C5] -> [P2, P3, P4, P5, P6], all with ``config.pyramid_channels``.

    Each level is a 1x1 lateral convolution plus the upsampled coarser level, smoothed by a 3x3
    convolution. P6 is every second cell of P5, for the region proposal network alone.
    """
    channels = config.pyramid_channels
    stages = [
        keras.Input((None, None, c), name=f"c{i}", dtype=dtype_of(dtype))
        for i, c in enumerate(stage_channels, 2)
    ]
    top, merged = None, {}
    for level in (5, 4, 3, 2):
        lateral = layers.Conv2D(channels, 1, name=f"fpn_c{level}p{level}", dtype=dtype)(
            stages[level - 2]
        )
        if top is not None:
            up = layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled", dtype=dtype)(top)
            lateral = layers.Add(name=f"fpn_p{level}add", dtype=dtype)([up, lateral])
        top = merged[level] = lateral
    pyramid = [
        layers.Conv2D(channels, 3, padding="same", name=f"fpn_p{level}", dtype=dtype)(merged[level])
        for level in (2, 3, 4, 5)
    ]
    pyramid.append(layers.MaxPooling2D(1, 2, name="fpn_p6", dtype=dtype)(pyramid[-1]))
    return keras.Model(stages, pyramid, name="pyramid")


def dtype_of(policy):
    """The compute dtype behind a policy name: mixed_bfloat16 -> bfloat16."""
    return (
        keras.DTypePolicy(policy).compute_dtype if isinstance(policy, str) else policy.compute_dtype
    )
