"""`nucleus-course download`: BBBC038 from its official address."""

from __future__ import annotations

from pathlib import Path

from nucleus_course.cli import common


@common.friendly
def download(
    to: Path = Path("data/bbbc038"),
) -> None:
    """Fetch BBBC038v1, the nuclei of the 2018 Data Science Bowl (CC0), from its official address.

    \b
    Example: nucleus-course download --to data/bbbc038

    Writes the archives as they are, stage1_train.zip above all, into DIR; other commands take that zip as
    --data, and nothing needs to be unpacked. A download that broke off goes on where it stopped, and a
    file that is already whole is not fetched again. In data/bbbc038 and bbbc038 the notebooks find it.

    Args:
        to (DIR): Where to put the archives.
    """
    from nucleus_course.data import download_bbbc038

    folder = common.output_folder(to)
    common.say("have: " + ", ".join(map(str, download_bbbc038(folder))))
    common.say(f"next: nucleus-course doctor --data {folder / 'stage1_train.zip'}")
