"""Browse the images of a data set, by type, with overlays."""

from nucleus_course.course.explorers.base import Control, Explorer
from nucleus_course.figures import draw_record

EVERY = "every type"
VIEWS = ("outlines", "masks", "boxes", "nothing")


class ImageBrowser(Explorer):
    """Step through the images of ``dataset`` (a :class:`nucleus_course.Dataset`)."""

    title = "Image browser"

    def __init__(self, dataset):
        self.dataset = dataset
        types = dataset.types
        self.ids = {EVERY: list(dataset.ids)}
        for image_id in dataset.ids:
            self.ids.setdefault(types[image_id], []).append(image_id)
        super().__init__(
            {
                "type": Control("choice", "Image type", EVERY, options=tuple(self.ids)),
                "number": Control("whole", "Image number", 1, low=1, high=len(dataset), step=1),
                "show": Control("choice", "Show on top", "outlines", options=VIEWS),
            }
        )

    def adjust(self, values):
        return {"number": {"high": len(self.ids[values["type"]])}}

    def _draw(self, type, number, show):
        ids = self.ids[type]
        number = min(max(number, 1), len(ids))
        record = self.dataset[ids[number - 1]]
        figure, caption = draw_record(record, "image" if show == "nothing" else show)
        return figure, f"Image {number} of {len(ids)} of {type}. {caption}"
