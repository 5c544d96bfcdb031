"""What has started the processes of a run: torchrun, Slurm, or the first one the others."""

import os

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)


class OwnProcesses(LightningEnvironment):
    """Of processes on this machine that :func:`other_processes` starts."""

    creates_processes_externally = True  # so that Lightning starts none


def launcher() -> ClusterEnvironment | None:
    """What has started this process as one of several, torchrun or Slurm's srun; None if it is on its own."""
    if TorchElasticEnvironment.detect():
        found: ClusterEnvironment = TorchElasticEnvironment()
    elif "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():
        # the project's own checkpoints go on after a signal; Lightning's way would submit the job again
        found = SLURMEnvironment(auto_requeue=False)
    else:
        return None
    return found if found.world_size() > 1 else None
