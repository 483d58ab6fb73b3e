"""Images from elsewhere: as sent and in canonical form, and scores on held-out sources."""

from nucleus_course.figures import style


def draw_canonical(sent, seen):
    """Images as sent above, in their canonical form below.

    Args:
        sent: {name: image as stored, (H, W) or (H, W, 3)}.
        seen: {name: :class:`~nucleus_course.data.canonical.Canonical`} of the same names.
    """
    figure, axes = style.panels(2 * len(sent), len(sent), side=2.6, ratio=1.12)
    for axis, below, (name, image) in zip(axes, axes[len(sent) :], sent.items()):
        style.picture(axis, image, name)
        style.picture(below, seen[name].rgb, f"nuclei {seen[name].polarity}")
    said = ", ".join(f"{name}: {one.polarity} nuclei" for name, one in seen.items())
    return figure, (
        f"Above, {len(sent)} images of the same nuclei as they were sent; below, each as the network sees it. "
        f"What was decided: {said}."
    )


def draw_folds(folds, key="coco_ap", label="AP"):
    """A score on sources that neither of two models has seen: a row for each source, then the mean with its interval.

    Args:
        folds: {split: a saved :class:`~nucleus_course.evaluation.by_source.SourceTable`, as a dict} of two models.
        key, label: the metric and its name on the axis.
    """
    rows = [(name, row) for table in folds.values() for name, row in table["sources"].items()]
    first, second = next(iter(folds.values()))["names"]
    figure, (axis,) = style.new_figure(7.2, 0.42 * (len(rows) + 2 * len(folds)) + 0.9)
    names, words = [], []
    for place, (name, row) in enumerate(rows):
        ours, theirs = row["first"][key], row["second"][key]
        axis.plot([theirs, ours], [place, place], color=style.GREY, lw=1.5, zorder=1)
        axis.plot(
            theirs, place, "s", color=style.VERMILION, ms=7, label=second if not place else None
        )
        axis.plot(ours, place, "o", color=style.BLUE, ms=7, label=first if not place else None)
        names.append(f"{name} ({row['images']})")
        words.append(f"{name} {theirs:.0f} and {ours:.0f}")
    for number, (split, table) in enumerate(folds.items()):
        mean, place = table["means"]["unseen"][key], len(rows) + number
        axis.axhspan(place - 0.5, place + 0.5, color="0.94", zorder=0)
        axis.plot(mean["second"], place, "s", color=style.VERMILION, ms=9)
        axis.plot(mean["first"], place, "o", color=style.BLUE, ms=9)
        names.append(f"mean of {split}")
        words.append(
            f"mean of {split} {mean['second']:.1f} and {mean['first']:.1f}, difference {mean['difference']:+.1f} "
            f"(95% {mean['low']:+.1f} to {mean['high']:+.1f})"
        )
    style.row_ticks(axis, names)
    values = [row[model][key] for _, row in rows for model in ("first", "second")]
    axis.set_xlim(max(0, min(values) - 5), min(100, max(values) + 5))
    axis.set_ylim(len(names) - 0.4, -0.6)
    style.tidy(axis, f"{label} on sources held out, percent", "")
    style.legend(axis, "below", ncols=2)
    return (
        figure,
        f"{label} on sources that neither model met, {second} and {first}: {'; '.join(words)}.",
    )
