"""Training: from a config to a run folder.  Nothing that is trained imports this."""

from audiovae.training.config import RunRecord, TrainConfig
from audiovae.training.device import choose_device
from audiovae.training.run import run

__all__ = ["RunRecord", "TrainConfig", "choose_device", "run"]
