"""The report of a build: one HTML file that says whether to trust a bundle, and shows why.

It holds everything it shows, asks nothing of a network, and runs no script. Needs the extra ``build``.
"""

from edge_resnet.report.answers import Answers, Recorded
from edge_resnet.report.evidence import Evidence, gather
from edge_resnet.report.page import render, report_path

__all__ = ["Answers", "Evidence", "Recorded", "gather", "render", "report_path"]
