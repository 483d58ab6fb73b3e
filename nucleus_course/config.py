"""Configurations as frozen dataclasses.

A preset has three main parts: the network (:class:`ModelConfig`), its training (:class:`TrainingConfig`), and
the augmentation (:class:`AugmentConfig`). The presets themselves are in :mod:`nucleus_course.presets`.
"""

import dataclasses
from dataclasses import dataclass, field, fields

from nucleus_course._util.errors import UserError
from nucleus_course._util.typed import fits, kind_of_value, shortened

IMAGE_TYPES = (
    "small fluorescent",
    "large fluorescent",
    "purple stain",
    "pink-and-purple stain",
    "grey tissue",
)
LOSSES = ("rpn_class", "rpn_box", "class", "box", "mask")
BORDERS = ("constant", "reflect")  # what augmentation puts beyond an image's edge


@dataclass(frozen=True)
class ModelConfig:
    """The network. Lengths are in pixels of the network's input, after ``upsample``.

    ``pre_nms`` is an upper limit: the best sixteenth of a level's anchors, but at least 200, go into
    the NMS of proposals, and never more than ``pre_nms``
    (:func:`~nucleus_course.models.mask_rcnn.proposals.level_budget`).
    """

    name: str
    backbone: str = "resnet50"  # resnet50, resnet101 or thin
    widths: tuple = (32, 64, 128, 256)  # thin: channels of C2..C5
    blocks: tuple = (2, 2, 2, 2)  # thin: basic blocks of each stage
    input: str = "colour"  # colour: as stored, in 8 bits; canonical: grey, nuclei bright
    upsample: float = 2.0  # image pixels to network pixels (paper: "upsampled by two")
    normalization: str = "mean"  # mean: subtract mean_pixel; percentile: stretch each image
    mean_pixel: tuple = (43.53, 39.56, 48.22)
    strides: tuple = (4, 8, 16, 32, 64)  # P2..P6
    pyramid_channels: int = 256
    anchor_sizes: tuple = (8, 16, 32, 64, 128)
    anchor_ratios: tuple = (0.5, 1.0, 2.0)
    rpn_channels: int = 512
    rpn_positive_iou: float = 0.7
    rpn_negative_iou: float = 0.3
    rpn_anchors_per_image: int = 64
    rpn_nms_train: float = 0.9
    rpn_nms: float = 0.7
    pre_nms: tuple = (1000, 1000)  # most proposals per level before NMS: training, prediction
    post_nms: tuple = (1000, 1000)  # proposals per image after NMS: training, prediction
    rois_per_image: int = 128
    roi_positive_fraction: float = 1.0 / 3.0
    roi_positive_iou: float = 0.5
    canonical_size: float = 224.0  # boxes of this side or more are pooled from P4
    box_pool: int = 7
    mask_pool: int = 14
    box_head_channels: int = 1024
    mask_head_channels: int = 256
    head_norm: bool = True
    mask_slots_per_image: int = 0  # 0: as many as positive RoIs
    mask_roi_scale: float = 1.0  # masks are predicted in the box scaled by this
    mask_samples: int = 1  # target samples along a side of a mask cell
    mask_scoring: bool = False  # multiply the score by the mean mask probability
    box_passes: int = 1  # how often the box head refines a box in prediction
    box_loss_beta: float = 1.0  # smooth L1 becomes linear here, in units of box_stds
    box_stds: tuple = (0.1, 0.1, 0.2, 0.2)
    max_nuclei: int = 384  # ground-truth slots per image; more are excluded, not negatives
    max_detections: int = 400
    train_norm: bool = False  # False: BatchNorm keeps its loaded statistics
    norm_epsilon: float = 1e-3
    pool_padding: str = "same"  # of the stem: same (Matterport) or symmetric (keras.applications)

    @property
    def mask_size(self):
        """Side of the predicted mask grid: twice the pooled side, 28 in the paper."""
        return 2 * self.mask_pool

    @property
    def positive_rois(self):
        """The largest number of positive RoIs sampled per image."""
        return max(1, int(self.rois_per_image * self.roi_positive_fraction))

    @property
    def pad_multiple(self):
        """Inputs are padded to a multiple of this many pixels, so that every level is whole."""
        return max(self.strides)


@dataclass(frozen=True)
class UNetConfig:
    """The U-Net baseline (:mod:`nucleus_course.models.unet`). Lengths are in pixels of the network's input."""

    name: str = "unet"
    kind: str = "unet"  # distinguishes a U-Net's model folder from a Mask R-CNN's
    widths: tuple = (16, 32, 64, 128, 256)  # channels of each level, finest first
    input: str = "colour"
    upsample: float = 1.0
    normalization: str = "percentile"
    mean_pixel: tuple = (43.53, 39.56, 48.22)
    boundary: int = 1  # width of a nucleus's ring that is not interior, pixels
    reach: int = 2  # pixels within this distance of two nuclei ...
    touch_weight: float = 4.0  # ... weigh this much more in the loss
    max_nuclei: int = 512  # ground-truth slots per image
    norm_epsilon: float = 1e-3

    @property
    def pad_multiple(self):
        """Inputs are padded to a multiple of this many pixels, so that every level is whole."""
        return 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: which layers are trained, for how long, at which rate.

    ``layers`` is ``heads`` (pyramid, RPN, heads), ``4+`` (ResNet stage 4 and up, and heads) or ``all``.
    ``schedule`` is ``constant``, or ``cosine`` from ``rate`` to a hundredth of it; ``warmup_epochs`` rise to it.
    """

    name: str
    layers: str = "all"
    epochs: int = 1
    rate: float = 1e-3
    schedule: str = "constant"
    warmup_epochs: int = 0

    def rate_at(self, epoch, progress=None):
        """Learning rate of an epoch of this stage (0-based); ``progress`` in [0, 1] overrides epoch / epochs."""
        import math

        progress = epoch / max(1, self.epochs) if progress is None else progress
        rate = self.rate
        if self.schedule == "cosine":
            rate *= 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        if epoch < self.warmup_epochs:
            rate *= (epoch + 1) / (self.warmup_epochs + 1)
        return rate


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation. The defaults are the paper's four changes. Angles are in degrees, lengths in pixels.

    ``blur`` is the range of sigma; ``scale`` a range of factors, ``gamma`` one of exponents, both drawn
    log-uniformly; ``contrast`` is the largest relative change and ``brightness`` the largest shift
    (share of 255); ``hue`` the largest rotation in degrees, ``saturation`` the largest relative change;
    ``stain`` the standard deviation of a gain of each channel's optical density (and a quarter of it as
    offset); ``invert`` a probability; ``noise`` the largest standard deviation in grey levels;
    ``elastic`` the standard deviation in pixels of a displacement that varies over ``elastic_spacing``
    pixels. Hue, saturation and stain do not change grey crops. ``shading``, ``haze``, ``sharpen`` and
    ``jpeg`` are those of :mod:`~nucleus_course.data.disturb`: shares, an amount and a probability.

    ``border`` fills the area beyond the image's edge (in small images, and in corners exposed by
    rotation): "constant" (``fill``, no nuclei: mirroring did not help the paper) or "reflect" (the
    mirrored image; its mirrored nuclei count as nuclei).

    A nucleus that the crop's border cuts to fewer than ``min_area`` pixels becomes background; with
    ``min_fraction`` only if that is also less than this share of the whole nucleus. Either may be set
    alone.
    """

    crop: bool = True
    rotation: float = 180.0
    quarter_turns: bool = False
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.5
    blur: tuple = (0.0, 2.0)
    blur_probability: float = 0.5
    scale: tuple = (1.0, 1.0)
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: tuple = (1.0, 1.0)
    hue: float = 0.0
    saturation: float = 0.0
    stain: float = 0.0
    invert: float = 0.0
    noise: float = 0.0
    elastic: float = 0.0
    elastic_spacing: float = 32.0
    shading: float = 0.0
    haze: float = 0.0
    sharpen: float = 0.0
    jpeg: float = 0.0
    border: str = "constant"
    fill: int = 0
    min_area: int = 0
    min_fraction: float = 0.0

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(each.default, tuple):  # JSON brings lists
                low, high = value
                if not 0 <= low <= high:
                    raise ValueError(
                        f"{each.name}={value}: give a range (low, high) with 0 <= low <= high"
                    )
                object.__setattr__(self, each.name, (float(low), float(high)))
            elif each.name != "border" and value < 0:
                raise ValueError(f"{each.name}={value} must not be negative")
        if self.scale[0] == 0 or self.gamma[0] == 0:
            raise ValueError("scale and gamma must be greater than 0")
        if self.border not in BORDERS:
            raise ValueError(f"border={self.border!r}: choose one of {', '.join(BORDERS)}")

    @classmethod
    def none(cls, **changes):
        """Nothing random: the unchanged centre of the image."""
        plain = dict(
            crop=False, rotation=0.0, flip_horizontal=0.0, flip_vertical=0.0, blur_probability=0.0
        )
        return cls(**{**plain, **changes})


@dataclass(frozen=True)
class TrainingConfig:
    """The training of a preset."""

    stages: tuple = ()
    batch_size: int = 6
    crop: int = 512  # side of the training crop in network pixels
    steps_per_epoch: int = 0  # 0: the data set's images over the batch size, rounded up
    optimizer: str = "sgd"  # sgd (momentum) or adamw
    momentum: float = 0.9
    weight_decay: float = 1e-4
    global_clipnorm: float = 5.0
    ema: float = 0.0  # decay of the averaged weights; 0: none
    settle: float = 0.0  # last share of the schedule, with gentle augmentation (presets.gentle)
    balance_types: float = 0.0  # 0: every image equally often; 1: every image type equally often
    balance_by: str = (
        "types"  # "sources": count experiments in place of image types, where they are known
    )
    type_factors: dict = field(default_factory=dict)  # image type -> factor of its share
    dtype: str = "float32"  # float32 or mixed_bfloat16
    seed: int = 2018
    workers: int = 2
    validate_every: int = 5  # epochs
    loss_weights: dict = field(default_factory=lambda: dict.fromkeys(LOSSES, 1.0))

    def __post_init__(self):
        if self.balance_by not in ("types", "sources"):
            raise UserError(f"balance_by is {self.balance_by!r}: choose types or sources")


@dataclass(frozen=True)
class Thresholds:
    """The operating point, chosen on the validation split and stored beside the weights.

    ``score`` cuts detections for everything but AP; ``nms_iou`` is the overlap of boxes above which the
    one with the lower score is removed; ``mask`` cuts the mask probability; ``min_area`` is in image pixels; ``flips`` is how
    many of the image's four flips are used (see :mod:`nucleus_course.prediction.flips`). ``diameters`` are
    the smallest median diameter of an image's nuclei that the network knows well, the one that suits it best, and
    the largest, in image pixels; empty if unknown (see :mod:`nucleus_course.prediction.scale`).
    ``metric``, ``split``, ``dataset`` and ``value`` say how they were chosen; :meth:`inherited` drops this.
    """

    score: float = 0.5
    nms_iou: float = 0.3
    mask: float = 0.5
    min_area: int = 0
    flips: int = 1
    metric: str = ""
    split: str = ""
    dataset: str = ""
    value: float | None = None
    diameters: tuple = ()
    chosen: bool = False  # whether they were chosen for these weights, that is, ``metric`` is set

    def __post_init__(self):
        object.__setattr__(self, "chosen", bool(self.metric))
        for name in ("score", "nms_iou", "mask"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}: give a number from 0 to 1")
        if self.flips not in (1, 2, 3, 4):
            raise UserError(f"flips={self.flips}: choose 1 (only the image itself), 2, 3 or 4")
        object.__setattr__(self, "diameters", tuple(self.diameters))  # JSON brings lists
        known = self.diameters
        numbers = all(isinstance(d, int | float) for d in known)
        if known and not (numbers and len(known) == 3 and 0 < known[0] <= known[1] <= known[2]):
            raise UserError(f"diameters={list(known)}: give the smallest, the best and the largest")

    def inherited(self):
        """The same thresholds for other weights, without what was chosen or measured for the old ones."""
        return dataclasses.replace(self, metric="", split="", dataset="", value=None, diameters=())


@dataclass(frozen=True)
class Preset:
    """A named recipe: model, training, augmentation and initial thresholds."""

    model: ModelConfig
    training: TrainingConfig
    augment: AugmentConfig
    thresholds: Thresholds = Thresholds()
    summary: str = ""

    @property
    def name(self):
        return self.model.name


def to_dict(config):
    """A config dataclass as plain JSON types."""
    return dataclasses.asdict(config)


def from_dict(cls, values):
    """Inverse of :func:`to_dict` for a config class.

    Raises:
        UserError: naming an unknown or missing key, or a value of another type.
    """
    if not isinstance(values, dict):
        raise UserError(f"{cls.__name__} is {shortened(values)}, but an object was expected")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(map(str, values)) - set(fields))
    if unknown:
        raise UserError(f"{cls.__name__} has no {', '.join(unknown)}: written by another version?")
    values = dict(values)
    for name, f in fields.items():
        needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if name not in values and needed:
            raise UserError(f"{cls.__name__} has no {name}: written by another version?")
    for key, value in values.items():
        if not fits(value, fields[key]):
            raise UserError(
                f"{cls.__name__}.{key} is {shortened(value)}, not {kind_of_value(fields[key])}"
            )
        if key == "stages":
            values[key] = tuple(
                s if isinstance(s, StageConfig) else from_dict(StageConfig, s) for s in value
            )
        elif isinstance(value, list):
            values[key] = tuple(value)
    return cls(**values)
