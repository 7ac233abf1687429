"""What a training asks of its machine: processor, memory, disk, network and, where told, GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pti_pipeline.tracking.run import Run


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """Log the machine's metrics in ``run`` every ten seconds while this lasts.

    They are of the whole machine: packs that run side by side share those of their sweep.
    ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false`` turns them off. GPUs need ``nvidia-ml-py``.
    """
    switch = MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    if switch.is_set() and not switch.get():
        yield
        return
    monitor = SystemMetricsMonitor(run.id, resume_logging=True)  # if it goes on
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
