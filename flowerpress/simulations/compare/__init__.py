"""Comparisons: methods x compressors x step sizes x seeds on one task, and reports of them.

==============  ======================================================================
`entry`         a comparison in one call
`settings`      what it is of, and whether a folder holds the same
`methods`       strategies with compressors and options, by name
`targets`       metrics, targets and the modelled network: what it took to get there
`runs`          many experiments over processes, each kept as it ends
`tuning`        step sizes, chosen on seeds that are not reported
`comparison`    all of it together
`plotted`       runs that were made one by one, as a comparison
`curves`        means and ranges over seeds
`summary`       the table
`cells`         the table as it is shown
`report`        one HTML file
`figures`       pictures for a paper
`written`       the files in the folder
`show`          the terminal
`tracked`       TensorBoard, MLflow, Weights & Biases
==============  ======================================================================
"""

from flowerpress.simulations.compare.comparison import Comparison
from flowerpress.simulations.compare.entry import compare
from flowerpress.simulations.compare.methods import Method, parse_method
from flowerpress.simulations.compare.plotted import plotted
from flowerpress.simulations.compare.runs import run_all
from flowerpress.simulations.compare.summary import table
from flowerpress.simulations.compare.targets import Link
from flowerpress.simulations.compare.written import write

__all__ = [
    "Comparison",
    "Link",
    "Method",
    "compare",
    "parse_method",
    "plotted",
    "run_all",
    "table",
    "write",
]
