"""`nucleus-course download`: BBBC038 from its official address."""

from __future__ import annotations

from pathlib import Path

from nucleus_course.cli import common


@common.friendly
def download(to: Path = Path("data/bbbc038")) -> None:
    """Fetch BBBC038v1, the nuclei of the 2018 Data Science Bowl (CC0), from its official address.

    \b
    Example: nucleus-course download --to data/bbbc038

    Writes the archives into DIR as they are, above all stage1_train.zip. Other commands take that zip as
    --data; nothing needs to be unpacked. An interrupted download continues where it stopped, and a
    complete file is not fetched again. The notebooks find the data in data/bbbc038 and bbbc038.

    Args:
        to (DIR): The folder for the archives.
    """
    from nucleus_course.data import download_bbbc038

    folder = common.output_folder(to)
    common.say("have: " + ", ".join(map(str, download_bbbc038(folder))))
    common.say(f"next: nucleus-course doctor --data {folder / 'stage1_train.zip'}")
