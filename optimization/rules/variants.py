"""Rules with a `variant`: whose optimizer it is, which sets all switches at once."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from optimization.configs.yaml_file import SourcedDict
from optimization.rules.rule import Rule


class VariantRule(Rule):
    """A rule whose field `variant` names one of its `variants`.

    Settings that name a variant set every switch to that variant's value, except those that they
    give themselves. Later settings change single switches.
    """

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # the value of each switch, by variant

    variant: str

    @classmethod
    def switches(cls) -> list[str]:
        """Returns the fields that a variant sets."""
        fields = {each.name for each in dataclasses.fields(cls)} - {"name", *cls.section_only}
        return [name for name in inspect.get_annotations(cls) if name in fields]

    @classmethod
    def with_defaults(
        cls, differences: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Returns all switches of each variant, given those that differ from the defaults."""
        usual = {name: cls._spec_of(name).default() for name in cls.switches()}
        return {name: {**usual, **own} for name, own in differences.items()}

    @classmethod
    def preset(cls, variant: str, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the switches of a variant, given what is `written` together with it."""
        return dict(cls.variants[variant])

    def _expanded(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Adds the switches of a `variant`, written where the variant is."""
        variant = params.get("variant")
        if not isinstance(variant, str) or variant not in self.variants:
            return params
        origins = getattr(params, "origins", {})
        written = {name: v for name, v in params.items() if not self._is_unset(name, v)}
        result = SourcedDict()
        for name, value in {**params, **self.preset(variant, written), **written}.items():
            result[name] = value
            origin = origins.get(name if name in params else "variant")
            if origin is not None:
                result.origins[name] = origin
        return result

    def _defaults(self) -> dict[str, Any]:
        return {**super()._defaults(), **self.preset(self.variant, vars(self))}
