"""Sources: the table that ships, the splits made from it, and the rule on the real images."""

from collections import Counter

import pytest
from stage1_sources import find_sources

from nucleus_course._util.errors import UserError
from nucleus_course.data import sources
from nucleus_course.data.splits import met_sources, protocol_ids, read_split_file, split_ids


def fold_of(source):
    return next(number for number, held in sources.FOLDS.items() if source in held)


def protocol():
    from importlib.resources import files

    return sorted(read_split_file(files("nucleus_course.data") / "splits" / "stage1-train.txt"))


def test_the_table_holds_every_id_of_the_protocol_once():
    table = sources.read_sources()
    assert sorted(table) == protocol() == list(protocol_ids(table))
    assert set(table.values()) == set(sources.SOURCES)


def test_every_source_is_held_out_by_one_split():
    held = Counter(name for names in sources.FOLDS.values() for name in names)
    assert held == Counter(list(sources.SOURCES))


def test_a_pair_of_splits_shares_no_source_and_leaves_no_image_out():
    table = sources.read_sources()
    seen = Counter()
    for number, held in sources.FOLDS.items():
        train, validation = (
            split_ids(table, f"source-{number}-{part}") for part in ("train", "validation")
        )
        assert sorted(train + validation) == sorted(table)
        assert {table[i] for i in validation} == set(held) and not {table[i] for i in train} & set(
            held
        )
        assert met_sources(f"source-{number}-train") == set(sources.SOURCES) - set(held)
        seen.update(validation)
    assert set(seen.values()) == {1}


def test_three_of_four_splits_learn_from_some_of_both_stains_and_smears():
    kinds = {
        "purple": {"lilac-256x320"},
        "pink": {"pale-256x320", "red-256x320"},
        "smears": {"smears-1024"},
    }
    for names in kinds.values():
        learned = [
            number for number in sources.FOLDS if names & met_sources(f"source-{number}-train")
        ]
        assert len(learned) >= 3


def test_other_data_have_no_sources():
    with pytest.raises(UserError, match="source-2-train.*stage1_train"):
        split_ids(["a", "b"], "source-2-train")


@pytest.mark.slow
def test_the_rule_gives_the_table_on_the_real_images(stage1):
    assert find_sources(stage1) == sources.read_sources()


@pytest.mark.slow
def test_no_near_duplicates_and_no_type_is_on_one_side_alone(stage1):
    table, folds = sources.read_sources(), {}
    for image_id, group in stage1.groups.items():
        folds.setdefault(group, set()).add(fold_of(table[image_id]))
    assert all(len(numbers) == 1 for numbers in folds.values())
    held = {
        kind: {fold_of(table[i]) for i, k in stage1.types.items() if k == kind}
        for kind in set(stage1.types.values())
    }
    assert len(held) == 5 and all(held.values())
