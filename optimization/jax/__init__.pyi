from .factory import OptimizerFactory as OptimizerFactory
from .state import OptimizerState as OptimizerState
from .state import state_of as state_of
