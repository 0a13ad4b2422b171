"""The report: the page it opens with, its numbers, and the packing of everything into one file."""

from hedflow.report.answer import make_answer
from hedflow.report.headline import headline
from hedflow.report.pack import pack_report

__all__ = ["headline", "make_answer", "pack_report"]
