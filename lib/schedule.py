"""The learning rate of each step, from the config and the step's number alone."""

import math

from lib.config import Config


def learning_rate(config: Config, epoch: int, step: int, steps: int) -> float:
    """Of step `step` of epoch `epoch` (both from 0), of `steps` steps an epoch.

    exponential: × lr_decay after each epoch, as released. cosine: from the end of the warm-up down
    to 0 after the last step. In the warm-up, the first share `warmup` of all steps, the rate also
    rises in equal parts, the first of which the first step has.
    """
    done, total = epoch * steps + step, config.epochs * steps
    rising = config.warmup * total  # steps, not always whole
    rate = config.learning_rate * (min(1.0, (done + 1) / rising) if rising else 1.0)
    if config.schedule == "exponential":
        return rate * config.lr_decay**epoch
    if done <= rising:
        return rate
    return rate * (1 + math.cos(math.pi * (done - rising) / (total - rising))) / 2
