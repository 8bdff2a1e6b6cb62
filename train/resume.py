"""Going on with a run: what may be another than it was, what must not, and what is said of it.

Three records are held against each other: the command line, the folder's config.json, and the
config.json that the newest checkpoint keeps, which nobody edits.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxrl.files import as_type, digest_of, read_text, reason_of
from jaxrl.train import edge
from jaxrl.train.devices import choose, num_cores, one_core_each
from jaxrl.train.logs import Lines, Spans, extend, found
from jaxrl.train.run_folder import METRICS, TRANSCRIPTS, differences, made_with, run_options

# Whatever is not in here must stay: of an option that is new, nobody has thought yet.
MAY_CHANGE = (
    *("run_dir", "resume", "devices", "hosts", "checkpoint_every", "eval_episodes", "wandb"),
    *("profile", "deadline", "workers"),
)
MAY_GROW = ("algo.total_steps", "algo.total_episodes")
# Read at the start alone: a checkpoint holds what became of them.
WEIGHTS = (".safetensors", ".npz")
BESIDE = ("tokenizer_config.json", "chat_template.jinja")  # read with a tokenizer.json
OF_FOLDERS = (*WEIGHTS, ".json", ".jinja")


@dataclass(frozen=True)
class Layout:
    """What besides options and seeds decides in which order a run's sums are taken."""

    devices: int
    seeds: int  # of them, along the mesh's axis of seeds
    per_seed: int  # and along that of one seed's environments
    blocks: int  # of a seed's environments, which are never split
    platform: str
    kind: str  # of device; of a CPU its name, for which XLA compiles
    processes: int
    cores: int = 0  # of a device that computes on several

    def words(self) -> str:
        hosts = f" of {self.processes} processes" if self.processes > 1 else ""
        cores = f" of {self.cores} cores" if self.cores else ""
        return f"{self.devices} {self.platform} device(s){cores}{hosts}, {self.per_seed} a seed"


def layout_of(mesh: Mesh, blocks: int, weights: int = 0) -> Layout:
    """Of a run on this mesh."""
    first = mesh.devices.flat[0]
    kind = _cpu() if first.platform == "cpu" else first.device_kind
    seeds, per_seed = mesh.devices.shape
    of_all = first.platform == "cpu" and not one_core_each(mesh, weights)
    cores, hosts = num_cores() if of_all else 0, jax.process_count()
    return Layout(mesh.devices.size, seeds, per_seed, blocks, first.platform, kind, hosts, cores)


def _cpu() -> str:
    try:
        lines = read_text(Path("/proc/cpuinfo")).split("\n")
    except ValueError:
        return "cpu"
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "cpu")


def digests(path: Path) -> dict[str, str]:
    """name -> digest of a file that an option names, or of the files of a model or of a run."""
    if path.is_dir():
        folder = path / "policy" if (path / "policy").is_dir() else path
        files = sorted(p for p in folder.iterdir() if p.suffix in OF_FOLDERS and p.is_file())
    else:
        beside = (path.parent / name for name in BESIDE if path.suffix == ".json")
        files = [path, *(p for p in beside if p.is_file())]
    return {p.name: _digest(p) for p in files}


def _digest(file: Path) -> str:
    """Of large weights the size and both ends: what another training leaves alone is in neither."""
    size, end = file.stat().st_size, 2**20
    if file.suffix not in WEIGHTS or size < 64 * end:
        return digest_of(file)
    with file.open("rb") as content:
        ends = content.read(end)
        content.seek(size - end)
        return hashlib.sha256(b"%d" % size + ends + content.read()).hexdigest()


def files_of(args: Any) -> dict[str, dict[str, str]]:
    """option -> digests of the files that it names, of all that do."""
    return {name: digests(path) for name, path in args.files().items() if path.exists()}


def refuse_changes(config: Mapping[str, Any], before: Any, args: Any) -> None:
    """ValueError where the command line asks for another run, or a file is not what it was.

    `before` are the options of config.json, those that it does not have by default.
    """
    folder, known = args.resume, _files(config)
    changed = _changed(run_options(before), run_options(args), known)
    if changed:
        words = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in changed.items())
        grows = next(n for n in MAY_GROW if hasattr(args.algo, n.removeprefix("algo.")))
        raise ValueError(
            f"resume={folder} was started with other options ({words}); leave these out to take "
            f"the run's own, or start a new run with --run-dir. {grows} may grow."
        )
    for name, path in args.files().items():
        if name in known:
            _refuse_another(name, path, known[name], args.begun, vars(before).get(name, path))


def _files(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return as_type(dict[str, dict[str, str]], config.get("files", {}), "config.json: files")


def _changed(old: dict, new: dict, files: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options of `old` in which they differ and must not; files are looked into instead."""
    changed = differences(old, _restricted(new, old))
    grown = {k for k, (a, b) in changed.items() if k in MAY_GROW and b > a}
    free = {k for k in changed if k.split(".")[0] in MAY_CHANGE}
    moved = {k for k, (_, b) in changed.items() if k in files and b is not None}
    return {k: x for k, x in changed.items() if k not in grown | free | moved}


def _restricted(new: dict, old: dict) -> dict[str, Any]:
    """Of what is new the fields that were there before, nested ones too."""
    found = {}
    for name, value in old.items():
        here = new.get(name)
        both = isinstance(value, dict) and isinstance(here, dict)
        found[name] = _restricted(here, value) if both else here
    return found


def _refuse_another(option: str, path: Path, known: dict, begun: bool, before: Any) -> None:
    """ValueError where a file that the run depends on is gone, or another than it was."""
    try:
        now = digests(path)
    except OSError as error:
        raise ValueError(
            f"{option}={path} cannot be read ({reason_of(error)}), and the run depends on it; put "
            f"it back, or say where it is now with --{option.replace('_', '-')}."
        ) from None
    for name in sorted(known.keys() | now.keys()):
        if begun and name.endswith(WEIGHTS):
            continue
        if known.get(name) != now.get(name):
            file = path / name if path.is_dir() else path.parent / name
            how = "is gone" if name not in now else "is new" if name not in known else "is another"
            raise ValueError(
                f"{option}: {before} -> {path}: {file} {how} since the run was started; put back "
                "what was there, or start a new run with --run-dir."
            )


class Past:
    """What a run that goes on was until now.

    `config` is the folder's, which the checkpoint's own word corrects; `words` are what a user must
    be told. ValueError where the two are not of one run.
    """

    def __init__(self, config: dict, record: dict, iteration: int, checkpoint: Path, args: Any):
        self.iteration, self.checkpoint, self.words = iteration, checkpoint, []
        self.lines, self.transcripts = record.get("lines"), record.get("transcripts")
        self.before = record.get("before")
        self.lost: dict[str, list[list[int]]] = {}
        self.config, saved = dict(config), record.get("config")
        if iteration and saved is None:
            run = {k: v for k, v in record.items() if k not in ("trainer", "iteration")}
            saved = {"options": run} | (
                {"trainer": record["trainer"]} if "trainer" in record else {}
            )
            self.words.append(
                f"{checkpoint} is an older version's: which options and devices it was made with "
                "is not all known"
            )
        if saved is not None:
            self._refuse_another_run(saved, run_options(args))
            self._correct(saved)
        self.entries = as_type(list[dict], self.config.get("resumed", []), "config.json: resumed")
        self.made: dict[str, Any] = (self.entries or [self.config])[-1]
        self._tell_versions()

    def _refuse_another_run(self, saved: dict[str, Any], asked: dict[str, Any]) -> None:
        config, own, file = (
            self.config,
            saved["options"],
            self.checkpoint.parents[1] / "config.json",
        )
        files = saved.get("files", {})
        odd = _changed(own, asked, files)
        if "trainer" in saved and config.get("trainer") != saved["trainer"]:
            odd = {"trainer": (saved["trainer"], config.get("trainer"))} | odd
        if "files" in saved:
            odd |= differences(files, _files(config), "files.")
        if not odd:
            return
        name, (its, here) = next(iter(odd.items()))
        same = None if "id" not in saved else config.get("id") == saved["id"]
        if same:
            raise ValueError(
                f"{file} says {name}={here}, but checkpoint {self.checkpoint} was made with "
                f"{name}={its}; put {its} back there, or start a new run with --run-dir."
            )
        edited = "" if same is False else f", or {file} was edited"
        back = "" if same is False else f"put {its} back into config.json if that was edited, or "
        raise ValueError(
            f"checkpoint {self.checkpoint} is of another run{edited}: its {name} is {its}, not "
            f"{here}; {back}move the checkpoint back to the run that made it."
        )

    def _correct(self, saved: dict[str, Any]) -> None:
        """Put back what was edited in config.json since the checkpoint was made."""
        past = saved.get("resumed", [])
        since = self.config.get("resumed", [])
        since = since if isinstance(since, list) else []
        of_run = {k: v for k, v in saved.items() if k not in ("options", "resumed")}
        now = {k: self.config.get(k) for k in of_run}
        for name, (its, here) in differences(of_run, now).items():
            self.words.append(f"config.json: {name} was edited from {its} to {here}; put back")
        if since[: len(past)] != past:
            self.words.append("config.json: resumed was edited; put back")
            since = past
        self.config |= of_run | ({"resumed": since} if since else {})

    def _tell_versions(self) -> None:
        was, now = (
            {"python": x.get("python")}
            | as_type(dict[str, str], x.get("packages", {}), "config.json: packages")
            | {"code": as_type(dict, x.get("code", {}), "config.json: code").get("commit")}
            for x in (self.made, made_with())
        )
        other = [f"{k} {old} -> {new}" for k, (old, new) in differences(was, now).items()]
        if other:
            self.words.append(
                f"since it was made: {', '.join(other)}; from iteration {self.iteration} on it may "
                "not be bit-equal to a run of one version"
            )

    def tell(self, aloud: bool) -> None:
        """Say what is to be said, once."""
        for word in self.words if aloud else []:
            edge.say(f"note: {word}.")
        self.words = []

    def mesh(self, args: Any, blocks: int, rows: int, weights: int = 0) -> Mesh:
        """The devices that the run had, or those that the command line names.

        ValueError where it had what this machine has not, and the command line does not say.
        """
        sizes = (args.num_members, blocks, rows, weights)
        if "layout" not in self.made:
            own = self.config["options"].get("devices", 0)
            return choose(args.devices or own, *sizes)
        was = as_type(Layout, self.made["layout"], "config.json: layout")
        devices, here = jax.devices(), choose(args.devices, *sizes)
        if not args.devices:
            there = (
                len(devices) == was.devices if was.processes > 1 else len(devices) >= was.devices
            )
            same = (was.platform, was.processes) == (devices[0].platform, jax.process_count())
            if not (there and same):
                raise ValueError(self._cannot_keep(was, layout_of(here, blocks, weights)))
            here = choose(was.devices, *sizes)
        now = layout_of(here, blocks, weights)
        if now != was:
            old, new = (x.words() for x in (was, now))
            other = f"{old} -> {new}" if old != new else f"{was.kind} -> {now.kind}"
            self.words.append(
                f"layout: {other}; from iteration {self.iteration} on it is not bit-equal to the "
                "run in its first layout"
            )
        return here

    def _cannot_keep(self, was: Layout, now: Layout) -> str:
        fewer = was.platform == now.platform == "cpu" and was.processes == now.processes == 1
        keep = f"XLA_FLAGS=--xla_force_host_platform_device_count={was.devices} keeps it, "
        return (
            f"resume={self.checkpoint.parents[1]} was made on {was.words()}; here there would be "
            f"{now.words()}, and from iteration {self.iteration} on it would not be bit-equal: "
            f"{keep if fewer else ''}--devices {now.devices} goes on in the other layout."
        )

    def find_lines(self, kept: Mapping[str, list[int]], lines: Lines) -> None:
        """Go on with the line that was begun, and see which of the older ones are gone."""
        there = kept.get(METRICS, [])
        if self.lines is None:
            lines.start = self.iteration
            for start, done in zip([0, *there], there, strict=False):
                extend(lines.spans, start, done)
            return
        lines.resume(self.lines)
        spans: Spans = self.lines["spans"]
        if not kept:  # another host writes
            lines.spans = spans
            return
        lines.spans, lost = found(spans, there)
        if lost:
            ranges = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in lost)
            self._lose(METRICS, lost, f"the lines of iterations {ranges}")
        (known, last), written = self.transcripts or (0, 0), kept.get(TRANSCRIPTS, [])
        if len(written) < known:
            first = max(written, default=0)
            first = first + 1 if first < last else 1
            some = f"{known - len(written)} of its {known} lines, of iterations {first}-{last}"
            self._lose(TRANSCRIPTS, [[first, last]], some)

    def _lose(self, file: str, lost: list[list[int]], what: str) -> None:
        self.lost[file] = lost
        path = self.checkpoint.parents[1] / file
        self.words.append(f"{path} lacks {what}: they are lost, and config.json says so")

    def extended(self, args: Any, layout: Layout) -> dict[str, Any]:
        """config.json from here on: what was resumed, where, with what."""
        options, asked = dict(self.config["options"]), run_options(args)
        changed = differences(options, _restricted(asked, options))
        changed = {k: list(x) for k, x in changed.items() if k not in ("run_dir", "resume")}
        for name in self.config.get("files", {}):
            options[name] = asked[name]
        for name in MAY_GROW:
            if name in changed:
                options["algo"] = options["algo"] | {name.removeprefix("algo."): changed[name][1]}
        entry = {
            "iteration": self.iteration,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "devices": layout.devices,
            "layout": asdict(layout),
            **made_with(),
        }
        entry |= {"options": changed} if changed else {}
        entry |= {"lost": self.lost} if self.lost else {}
        return self.config | {"options": options, "resumed": [*self.entries, entry]}


def lost_lines(config: Mapping[str, Any]) -> dict[str, list[list[int]]]:
    """file -> [first, last] iterations that are lost, in all of a run's resumes."""
    lost: dict[str, list[list[int]]] = {}
    for entry in config.get("resumed", []):
        for file, ranges in entry.get("lost", {}).items():
            lost[file] = [*lost.get(file, []), *(x for x in ranges if x not in lost.get(file, []))]
    return lost
