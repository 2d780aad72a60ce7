"""Folders of made-up results, compared as reports do."""

from supple.lab.report.measures import measure
from supple.lab.report.page import make_report
from supple.lab.study.results import load


def view_of(folder):
    """How a folder is shown alone."""
    return make_report([load(folder)]).views[0]


def measured_of(folder):
    """The numbers of a folder."""
    return measure(load(folder))
