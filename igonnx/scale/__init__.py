"""A whole data set explained on a Ray cluster, into a folder of Parquet files: what `igonnx batch` runs.

The inputs are listed once and cut into parts. Tasks of Ray Data read a part, an actor with an `Explainer` of its own
explains it and puts its files into the output folder whole, so that a run that was killed goes on where it was.
Needs Ray and PyArrow (`pip install igonnx[ray]`).
"""

from igonnx.scale.cluster import Cluster
from igonnx.scale.job import Job
from igonnx.scale.listing import Listing, list_inputs
from igonnx.scale.run import Outcome, run_job

__all__ = ["Cluster", "Job", "Listing", "Outcome", "list_inputs", "run_job"]
