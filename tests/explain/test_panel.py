import numpy as np
import pytest

from cxr_jax.explain.case import Case
from cxr_jax.explain.panel import MOST_TILES, Group, draw_groups, gallery_of, make_tile
from cxr_jax.vocabulary import DISCLAIMER


def tile(name, label="NORMAL", called="PNEUMONIA", shape=(90, 120), blank=False):
    case = Case(name, label, called, 0.75, 0.5, called, "conv_head", blank)
    grey = np.full(shape, 60, np.uint8)
    return make_tile(case, grey, np.full((*shape, 3), (200, 90, 10), np.uint8))


def texts_of(figure):
    return [text.get_text() for text in figure.texts]


def test_large_pictures_are_made_small_and_keep_their_shape():
    made = tile("a.png", shape=(1500, 2000))
    assert made.grey.shape == (390, 520)
    assert made.overlay.shape == (390, 520, 3)
    assert tile("a.png", shape=(90, 120)).grey.shape == (90, 120)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, MOST_TILES])
def test_every_case_is_on_the_page_with_its_labels_and_both_pictures(count):
    names = [f"{number:02d}.png" for number in range(count)]
    figure = draw_groups([Group("", [tile(name) for name in names])], "The title", ["A note.", DISCLAIMER])
    texts = texts_of(figure)
    assert set(names) <= set(texts)
    assert texts.count("true NORMAL, called PNEUMONIA, P(pneumonia) 75 %") == count
    assert "The title" in texts
    assert any(DISCLAIMER in text.replace("\n", " ") for text in texts)
    assert sum(len(axes.images) for axes in figure.axes) == 2 * count
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1 for box in boxes)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_texts_stay_on_the_page_and_off_the_pictures():
    longest = tile("person1234_bacteria_5678_with_a_very_long_name_indeed.jpeg", called="PNEUMONIA", blank=True)
    figure = draw_groups([Group("", [longest] * 5)], "A title " * 12, ["A note that is quite long. " * 4, DISCLAIMER])
    figure.canvas.draw()
    page = figure.bbox
    pictures = [axes.get_window_extent() for axes in figure.axes if axes.images]
    for text in figure.texts:
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.y0 >= 0 and extent.x1 <= page.x1 and extent.y1 <= page.y1, text.get_text()
        assert not any(extent.overlaps(picture) for picture in pictures), text.get_text()


def test_only_errors_are_coloured_and_blank_maps_are_marked():
    figure = draw_groups(
        [Group("", [tile("a.png"), tile("b.png", "PNEUMONIA"), tile("c.png", None, blank=True)])], "t", ["n"]
    )
    colours = {
        text.get_text().split(",")[0]: text.get_color() for text in figure.texts if text.get_text().startswith("true")
    }
    assert colours["true NORMAL"] != colours["true PNEUMONIA"] == colours["true unknown"]
    assert texts_of(figure).count("evidence for PNEUMONIA (blank)") == 1


@pytest.mark.parametrize("count", [0, MOST_TILES + 1])
def test_a_page_has_room_for_so_many(count):
    with pytest.raises(ValueError, match="do not fit"):
        draw_groups([Group("", [tile("a.png")] * count)], "t", ["n"])


def test_groups_stand_under_their_headings_and_an_empty_one_is_told():
    groups = [
        Group("First: 4 of 9", [tile(f"{number}.png") for number in range(4)]),
        Group("Second: 0 of 0", []),
        Group("Third: 1 of 1", [tile("last.png")]),
    ]
    figure = draw_groups(groups, "The title", ["A note."])
    figure.canvas.draw()
    places = {text.get_text(): text.get_window_extent() for text in figure.texts}
    order = ["The title", "First: 4 of 9", "0.png", "3.png", "Second: 0 of 0", "Third: 1 of 1", "last.png", "A note."]
    tops = [places[name].y1 for name in order]
    assert tops == sorted(tops, reverse=True)
    assert all(extent.y0 >= 0 for extent in places.values())
    pictures = [axes.get_window_extent() for axes in figure.axes if axes.images]
    assert len(pictures) == 10
    assert not any(extent.overlaps(picture) for extent in places.values() for picture in pictures)


def test_a_gallery_holds_the_cases_of_the_page_with_both_pictures():
    groups = [
        Group("Wrong", [tile("a/b.png", blank=True)]),
        Group("Right", [tile("c.png", "PNEUMONIA"), tile("d.png")]),
    ]
    gallery = gallery_of(groups, "The title")
    assert gallery.title == "The title"
    assert [(group.heading, [case.file for case in group.tiles]) for group in gallery.groups] == [
        ("Wrong", ["a/b.png"]),
        ("Right", ["c.png", "d.png"]),
    ]
    first, second = gallery.groups[0].tiles[0], gallery.groups[1].tiles[0]
    assert first.told == "blank: nothing at conv_head speaks for PNEUMONIA"
    assert second.told == "evidence for PNEUMONIA"
    assert (second.label, second.called, second.probability) == ("PNEUMONIA", "PNEUMONIA", 0.75)
    assert len(first.pictures) == 2
    assert first.pictures[0] != first.pictures[1]
