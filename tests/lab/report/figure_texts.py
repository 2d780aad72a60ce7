"""The texts of a figure, and which of them are cut off."""


def texts_of(figure):
    """The texts that are drawn: of ticks only those within the limits."""
    yield from (*figure.texts, *([figure._suptitle] if figure._suptitle else []))
    for legend in figure.legends:
        yield from (*legend.get_texts(), legend.get_title())
    for axes in filter(lambda one: one.get_visible(), figure.axes):
        yield from axes.texts
        yield from (axes.xaxis.label, axes.yaxis.label)
        yield axes._left_title
        yield from axes.get_legend().get_texts() if axes.get_legend() else ()
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            yield from (tick.label1 for tick in axis.get_major_ticks() if min(limits) <= tick.get_loc() <= max(limits))


def texts_outside(figure):
    """Texts that do not lie in the figure."""
    figure.draw_without_rendering()
    found = []
    for text in filter(lambda one: one.get_text(), texts_of(figure)):
        box = text.get_window_extent()
        if box.x0 < -1 or box.x1 > figure.bbox.x1 + 1 or box.y0 < -1 or box.y1 > figure.bbox.y1 + 1:
            found.append(text.get_text())
    return found
