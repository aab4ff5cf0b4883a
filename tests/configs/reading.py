from optimization.configs.errors import ConfigError
from optimization.configs.yaml_file import read


def parse(text, source="<text>"):
    value, problems = read(text, source)
    if problems:
        raise ConfigError(problems)
    return value
