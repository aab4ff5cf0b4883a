from .factory import OptimizerFactory as OptimizerFactory
from .sharding import abstract_state as abstract_state
from .state import OptimizerState as OptimizerState
from .state import estimated_step_sizes as estimated_step_sizes
from .state import state_of as state_of
