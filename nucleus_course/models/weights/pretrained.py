"""Download published weights to the user's cache, and verify them."""

from dataclasses import dataclass
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course.data.cache import cache_folder
from nucleus_course.data.download import ResumingDownloader, alone

PRETRAINED = ("coco", "imagenet")
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/{}_weights_tf_dim_ordering_tf_kernels_notop.h5"


@dataclass(frozen=True)
class Download:
    """A file of weights to download."""

    url: str
    md5: str

    @property
    def name(self):
        return self.url.rsplit("/", 1)[-1]


# COCO weights exist only for ResNet-101. A ResNet-50 takes its layers by name, as in Matterport's loader: all
# are there, and the last 17 of the 23 blocks of stage 4 are not used.
_COCO = Download(
    "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5",
    "e98aaff6f99e307b5e2a8a3ff741a518",
)
DOWNLOADS = {
    ("coco", "resnet50"): _COCO,
    ("coco", "resnet101"): _COCO,
    ("imagenet", "resnet50"): Download(
        _KERAS.format("resnet50"), "4d473c1dd8becc155b73f8504c6f6626"
    ),
    ("imagenet", "resnet101"): Download(
        _KERAS.format("resnet101"), "88cf7a10940856eca736dc7b7e228a21"
    ),
}


def fetch(name, backbone, cache_dir=None):
    """The path of published weights, downloaded if they are not in the cache yet.

    Args:
        name: ``coco`` or ``imagenet``.
        backbone: ``resnet50`` or ``resnet101``.
        cache_dir: default: the user's cache folder, or $NUCLEUS_COURSE_CACHE.

    Raises:
        UserError: no such weights, no network, or a wrong checksum.
    """
    import pooch

    try:
        file = DOWNLOADS[name, backbone]
    except KeyError:
        raise UserError(
            f"no {name} weights exist for {backbone}, only for resnet50 and resnet101"
        ) from None
    folder = cache_folder(cache_dir) / "weights"
    by_hand = f"download {file.url} by other means and give the file as --weights FILE"
    pooch.get_logger().setLevel("WARNING")
    folder.mkdir(parents=True, exist_ok=True)
    options = {"fname": file.name, "path": folder}
    options["downloader"] = ResumingDownloader(folder / f"{file.name}.partial")
    try:
        with alone(folder / file.name):
            return Path(pooch.retrieve(file.url, f"md5:{file.md5}", **options))
    except ValueError:
        raise UserError(
            f"{file.name} has another checksum than {file.md5}: try again, or {by_hand}"
        ) from None
    except OSError as error:  # requests' errors are OSErrors too
        if getattr(error, "filename", None):
            raise
        raise UserError(
            f"{name} weights cannot be downloaded ({type(error).__name__}; is there a network?): {by_hand}"
        ) from None
