"""What Prometheus is told, at /metrics of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import version

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from igonnx.serving.served import Served
from igonnx.serving.sharing import Together

__all__ = ["Metrics"]

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_ERRORS = (1e-6, 1e-5, 1e-4, 1e-3, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_STEPS = (1, 8, 16, 32, 50, 64, 100, 128, 200, 256, 500, 1000)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The server's counters; `model` is a label of all."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        verbs = ("model", "verb")

        def histogram(
            name: str, text: str, labels: Iterable[str], buckets: Iterable[float]
        ) -> Histogram:
            return Histogram(
                f"igonnx_{name}", text, tuple(labels), buckets=tuple(buckets), registry=registry
            )

        self.requests = Counter(
            "igonnx_requests",
            "Requests that have ended, by HTTP status",
            (*verbs, "status"),
            registry=registry,
        )
        self.seconds = histogram(
            "request_seconds", "Seconds that a request took, answered ones", verbs, _SECONDS
        )
        self.waited = histogram(
            "queue_seconds", "Seconds that a request waited for its turn", verbs, _SECONDS
        )
        self.together = histogram(
            "batch_requests", "Requests that were computed in one go", verbs, _COUNTS
        )
        self.rows = histogram(
            "batch_rows",
            "Rows (gradients, or forward passes) asked for in one go",
            verbs,
            (*_STEPS, 2000, 5000, 20_000),
        )
        self.computing = histogram("batch_seconds", "Seconds that one go took", verbs, _SECONDS)
        self.steps = histogram(
            "steps_used", "Gradients of an explained example", ("model", "method"), _STEPS
        )
        self.error = histogram(
            "completeness_error",
            "Relative completeness error of an example",
            ("model", "method"),
            _ERRORS,
        )
        self.queue = Gauge(
            "igonnx_queue_length",
            "Requests that wait for their turn",
            ("model",),
            registry=registry,
        )
        self.info = Gauge(
            "igonnx_model_info",
            "The file that is served",
            ("model", "sha256", "igonnx_version"),
            registry=registry,
        )

    def add_model(self, name: str, sha256: str, waiting: Callable[[], int]) -> None:
        """Begin to tell of a model; `waiting` is asked for the length of its queue."""
        self.queue.labels(name).set_function(waiting)
        self.info.labels(name, sha256, version("igonnx")).set(1)

    def served(self, served: Served) -> None:
        """A request has ended."""
        self.requests.labels(served.model, served.verb, str(served.status)).inc()
        if served.status != 200:
            return
        self.seconds.labels(served.model, served.verb).observe(served.seconds)
        self.waited.labels(served.model, served.verb).observe(served.waited)
        for steps in served.steps:
            self.steps.labels(served.model, served.method).observe(steps)
        for error in served.completeness_error:
            self.error.labels(served.model, served.method).observe(error)

    def computed(self, model: str, verb: str, together: Together, seconds: float) -> None:
        """Requests were computed in one go."""
        self.together.labels(model, verb).observe(len(together.jobs))
        self.rows.labels(model, verb).observe(sum(job.cost for job in together.jobs))
        self.computing.labels(model, verb).observe(seconds)
