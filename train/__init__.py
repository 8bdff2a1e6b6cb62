"""Trainers: `python -m train` lists them, `python -m train.ppo` runs one.

The package can be called: `jaxrl.train("ppo", env="CartPole-v1")` is `in_python.train`.
"""

import sys
from types import ModuleType
from typing import Any

if __name__ == "train":  # the short name
    from jaxrl.short_names import stand_in

    stand_in("train")
else:

    class _Package(ModuleType):
        """This package, which is a function too; what that needs is imported when it is called."""

        def __call__(self, *args: Any, **options: Any) -> Any:
            from jaxrl.train.in_python import train

            return train(*args, **options)

    sys.modules[__name__].__class__ = _Package
