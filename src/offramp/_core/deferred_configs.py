"""Model types that `transformers.AutoConfig` knows before their modules are imported.

`import offramp` must stay light, but `AutoConfig.from_pretrained` must read our folders. So a stand-in for
each config class is registered as soon as the library's config mapping is loaded. When a config is read, the stand-in
imports the module that registers the real classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MAPPING = "transformers.models.auto.configuration_auto"


def defer_configs(homes: Mapping[str, str]) -> None:
    """Register stand-ins now if the library's config mapping is loaded, else as soon as it is.

    Args:
        homes: model type to the module that registers its classes with the library's Auto classes.
    """
    if MAPPING in sys.modules:
        _register(sys.modules[MAPPING], homes)
    else:
        sys.meta_path.insert(0, _MappingHook(homes))


class _MappingHook(MetaPathFinder, Loader):
    """Finds the library's config mapping once, runs it with its own loader, then registers the stand-ins."""

    loader: Loader

    def __init__(self, homes: Mapping[str, str]) -> None:
        self.homes = homes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != MAPPING:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register(module, self.homes)


def _register(mapping: ModuleType, homes: Mapping[str, str]) -> None:
    for model_type, home in homes.items():
        if model_type not in mapping.CONFIG_MAPPING:
            mapping.AutoConfig.register(model_type, _stand_in(mapping, model_type, home))


def _stand_in(mapping: ModuleType, name: str, home: str) -> type:
    class DeferredConfig:
        """Reads a config with the real class, which its module registers."""

        model_type = name

        @classmethod
        def from_dict(cls, config: dict[str, Any], **options: Any) -> Any:
            importlib.import_module(home)
            return mapping.CONFIG_MAPPING[name].from_dict(config, **options)

    return DeferredConfig
