# ruff: noqa: E501  (the names are those of transformers)
from .accumulator import GradientAccumulator as GradientAccumulator
from .adafactor import Adafactor as Adafactor
from .adafactor import AdafactorSchedule as AdafactorSchedule
from .adafactor import get_adafactor_schedule as get_adafactor_schedule
from .adam_weight_decay import AdamWeightDecay as AdamWeightDecay
from .adamw import AdamW as AdamW
from .create import create_optimizer as create_optimizer
from .lambda_scheduler import GreedyLR as GreedyLR
from .schedulers import SchedulerType as SchedulerType
from .schedulers import StreamingAverage as StreamingAverage
from .schedulers import get_constant_schedule as get_constant_schedule
from .schedulers import get_constant_schedule_with_warmup as get_constant_schedule_with_warmup
from .schedulers import get_cosine_schedule_with_warmup as get_cosine_schedule_with_warmup
from .schedulers import (
    get_cosine_with_hard_restarts_schedule_with_warmup as get_cosine_with_hard_restarts_schedule_with_warmup,
)
from .schedulers import (
    get_cosine_with_min_lr_schedule_with_warmup as get_cosine_with_min_lr_schedule_with_warmup,
)
from .schedulers import (
    get_cosine_with_min_lr_schedule_with_warmup_lr_rate as get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
)
from .schedulers import get_greedy_schedule as get_greedy_schedule
from .schedulers import get_inverse_sqrt_schedule as get_inverse_sqrt_schedule
from .schedulers import get_linear_schedule_with_warmup as get_linear_schedule_with_warmup
from .schedulers import (
    get_polynomial_decay_schedule_with_warmup as get_polynomial_decay_schedule_with_warmup,
)
from .schedulers import get_reduce_on_plateau_schedule as get_reduce_on_plateau_schedule
from .schedulers import get_scheduler as get_scheduler
from .schedulers import get_wsd_schedule as get_wsd_schedule
from .warmup import WarmUp as WarmUp
