"""Training: from a config to a run folder.  Nothing that is trained imports this."""

from audiovae.training.config import RunRecord, TrainConfig
from audiovae.training.run import choose_device, run

__all__ = ["RunRecord", "TrainConfig", "choose_device", "run"]
