"""Checkpoints of the whole state, by orbax: each device writes its shards, renamed when whole."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxrl.policy import fill_leaves, named_leaves

KEEP = 3  # newest checkpoints that stay


class Checkpoints:
    """Numbered checkpoints of one run under `folder`; the number is the iteration."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._manager: ocp.CheckpointManager | None = None

    def save(self, iteration: int, state: Any) -> None:
        """Write `state` (all hosts call this); returns once it is safe to donate the state."""
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, create=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._manager.save(iteration, args=ocp.args.StandardSave(named_leaves(state)))
        self._manager.wait_until_finished()

    def iterations(self) -> list[int]:
        """Iterations with a whole checkpoint, oldest first; unfinished writes do not count."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def restore(self, iteration: int, template: Any) -> Any:
        """The state as saved, laid out like `template` (arrays or ShapeDtypeStructs).

        Raises ValueError, in one line, for a checkpoint that is damaged or of another program.
        """
        path = self.folder / str(iteration)
        wanted = named_leaves(template)
        try:
            with ocp.StandardCheckpointer() as reader:
                saved = reader.metadata(path / "default").item_metadata.tree
                odd = sorted(saved.keys() ^ wanted.keys()) or [
                    name for name, x in wanted.items() if tuple(saved[name].shape) != x.shape
                ]
                if not odd:
                    return fill_leaves(
                        template, reader.restore(path / "default", wanted), str(path)
                    )
        except Exception as error:  # orbax raises many kinds; to the user they are one
            reason = str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"checkpoint {path} cannot be read ({type(error).__name__}: {reason}); "
                f"{self._way_out(iteration)}"
            ) from error
        raise ValueError(
            f"checkpoint {path} is of another environment or network: {odd[0]} differs; "
            "resume with the options in the run's config.json."
        )

    def _way_out(self, iteration: int) -> str:
        earlier = [i for i in self.iterations() if i < iteration]
        if earlier:
            return f"delete that folder to resume from iteration {earlier[-1]}."
        return "delete that folder to start again from iteration 0."

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()


def abstract(state: Any) -> Any:
    """Shapes, dtypes and shardings of a state, for `Checkpoints.restore`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
