"""Configuration: dataclasses, the strict decoder, YAML files and overrides."""
