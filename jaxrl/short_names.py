"""`import envs` and `import train`: short names of `jaxrl.envs` and `jaxrl.train`.

The same module objects, so one registry, whichever name they were imported by. Inside, the project
goes by the long names: what lies in a user's working directory cannot come in between.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType


class _SameModule(Loader):
    """Loads a module of ours under its short name: it is the one of the long name."""

    def __init__(self, long: ModuleSpec):
        self.long = long

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(self.long.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.long  # which the import system has just replaced

    def get_code(self, fullname: str) -> CodeType:
        """What `python -m` runs."""
        del fullname
        return self.long.loader.get_code(self.long.name)  # pyright: ignore


class _Finder(MetaPathFinder):
    """Finds what is imported below a short name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        first, _, rest = fullname.partition(".")
        package = sys.modules.get(first)
        if not rest or getattr(package, "__name__", "") != f"jaxrl.{first}":
            return None
        long = find_spec(f"jaxrl.{fullname}")
        return long and ModuleSpec(
            fullname, _SameModule(long), origin=long.origin, is_package=bool(_inside(long))
        )


def _inside(spec: ModuleSpec) -> Sequence[str] | None:
    return spec.submodule_search_locations


def stand_in(name: str) -> None:
    """Let `import NAME` give the package `jaxrl.NAME`; called by the package that it finds."""
    sys.modules[name] = importlib.import_module(f"jaxrl.{name}")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
