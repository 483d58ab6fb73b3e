"""`predict` in shards and in several processes at once, with a detector that needs no network."""

import pytest
from cli.many import contents, merge, run, start
from cli.stub import COUNT
from terminal import one_line_error, plain


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_shards_that_are_none(images, stub, tmp_path, shard):
    one_line_error(run(images, "--out", tmp_path / "out", "--shard", shard), f"--shard {shard}")


def test_shards_in_parallel_then_merge(images, straight, tmp_path):
    out = tmp_path / "out"
    jobs = [start(images, "--out", out, "--shard", f"{i}/3", PAUSE="0.05") for i in (1, 2, 3)]
    for job in jobs:
        stdout, stderr = job.communicate(timeout=600)
        assert job.returncode == 0 and "next, when all shards are done" in stdout, stderr
    assert not (out / "predictions.json").exists()
    assert merge(out).exit_code == 0
    assert contents(out) == straight


def test_an_empty_shard_is_no_error(images, stub, tmp_path):
    done = run(images / "image00.png", "--out", tmp_path / "out", "--shard", "2/2")
    assert done.exit_code == 0 and "is empty" in done.stderr and not stub.calls


def test_folders_of_several_machines_become_one(images, stub, straight, tmp_path):
    for part in ("1", "2"):
        assert run(images, "--out", tmp_path / part, "--shard", f"{part}/2").exit_code == 0
    words = (tmp_path / "1", tmp_path / "2")
    one_line_error(merge(*words), "--out DIR")
    result = merge(*words, "--out", tmp_path / "out")
    assert result.exit_code == 0 and f"{COUNT * (COUNT + 1) // 2} nuclei in 12 images" in plain(
        result.stdout
    )
    assert contents(tmp_path / "out") == straight
    one_line_error(merge(tmp_path / "nothing"), "no results")
    assert run(images, "--out", tmp_path / "3", "--score-threshold", 0.2).exit_code == 0
    one_line_error(
        merge(tmp_path / "1", tmp_path / "3", "--out", tmp_path / "x"), "score_threshold"
    )


def test_two_processes_share_a_folder(images, straight, tmp_path):
    """Both do the same images, then each its own half: no result is lost or incomplete."""
    files = sorted(images.iterdir())
    for name, parts in (("same", (files, files)), ("halves", (files[::2], files[1::2]))):
        out = tmp_path / name
        jobs = [start(*part, "--out", out, "--resume", PAUSE="0.03") for part in parts]
        for job in jobs:
            _, stderr = job.communicate(timeout=600)
            assert job.returncode == 0, stderr
        assert contents(out) == straight, name
