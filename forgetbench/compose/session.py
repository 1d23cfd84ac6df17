"""One command's overrides inside an initialised Hydra: compose them, check them, list a grid's points."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from forgetbench.compose import refusals
from forgetbench.compose.checks import problems
from forgetbench.compose.checks.recipe import unused_mix
from forgetbench.compose.config_files import check_files
from forgetbench.compose.overrides import as_argument, parse, quoted
from forgetbench.compose.targets import check_secrets, check_targets, refusal, resolved
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ScoreConfig
from forgetbench.core.errors import UserError
from forgetbench.core.nested import misplaced
from forgetbench.core.options import GROUPS, USER_CONF, USER_MANIFESTS, config_files, manifest_names
from forgetbench.core.paths import shipped
from forgetbench.core.references import literal
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.registry import SCHEMAS

REFUSED = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError)
"""What composing raises on a bad override or a bad file."""

_WAYS = {"every": "null", "steps": "[]", "log_spaced": "null"}
"""How to choose checkpoints, one of the three, and how each says that it does not."""


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of the command's own keys, its dataclass type kept."""
    plain = copy.deepcopy(config)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    return plain


@contextmanager
def opened(kind: type[Any], overrides: Sequence[str]) -> Iterator[Session]:
    """Hydra with the shipped and the user's configs, and one `data` option per manifest."""
    name = next(name for name, schema in SCHEMAS.items() if schema is kind)
    if words := [word for word in overrides if "=" not in word and not word.startswith("~")]:
        raise refusals.bare_word(name, words[0], USER_MANIFESTS)
    parsed = parse(overrides)
    chosen = [override.value() for override in parsed if override.key_or_group == "manifests"]
    # Any other value is of the wrong type, which composing says better.
    manifests = chosen[-1] if chosen and isinstance(chosen[-1], list) else USER_MANIFESTS
    _register([str(folder) for folder in manifests])
    check_files()
    before = HydraConfig.instance().cfg
    try:
        with initialize_config_dir(str(shipped("conf")), job_name="forgetbench", version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield Session(hydra, name, parsed, [str(folder) for folder in manifests])
    finally:
        HydraConfig.instance().cfg = before


def _register(manifests: Sequence[str]) -> None:
    store = ConfigStore.instance()
    _register_schemas()
    # The store outlives a call, and the next call may be made in another folder.
    store.repo.pop("data", None)
    files = config_files("data")
    for name in manifest_names(manifests):
        if name not in files:
            # A plain node: making a typed one for each of a hundred manifests would take most of a command's start.
            node = {"defaults": ["/schema/data@_here_", "_self_"], "stages": [{"set": literal(name)}]}
            store.store(group="data", name=name, node=node, provider="data_manifests")


@cache
def _register_schemas() -> None:
    for name, schema in SCHEMAS.items():
        group, _, option = f"schema/{name}".rpartition("/")
        ConfigStore.instance().store(group=group, name=option, node=schema, provider="forgetbench")


class Session:
    """One command's overrides inside an initialised Hydra."""

    def __init__(self, hydra: Hydra, name: str, parsed: list[Override], manifests: list[str]) -> None:
        self.hydra = hydra
        self.name = name
        self.mode = RunMode.MULTIRUN if name == "sweep" else RunMode.RUN
        self.parsed = parsed
        self.manifests = manifests
        self.catalogue = Catalogue(manifests)
        self.lines = [str(override.input_line) for override in parsed]
        own = USER_CONF.resolve()
        if own.is_dir() and own != shipped("conf").resolve() and not self._gives("hydra.searchpath"):
            self.lines.append(f"hydra.searchpath=[{quoted(f'file://{own}')}]")
        check_secrets({override.key_or_group: str(override.input_line) for override in parsed})
        for override in parsed:
            self._check_override(override)
        if self.mode is RunMode.MULTIRUN:
            self.lines.append("hydra.mode=MULTIRUN")

    def _gives(self, key: str) -> bool:
        return any(override.key_or_group == key for override in self.parsed)

    def _check_override(self, override: Override) -> None:
        key, line = override.key_or_group, str(override.input_line)
        if key == "hydra.mode":
            raise UserError(f"{line}: the command decides the mode; `sweep` runs many points, the others one.")
        if override.is_delete():
            raise UserError(f"{line}: a key cannot be deleted; give it a value, such as {key}=null.")
        if override.is_sweep_override() and self.mode is RunMode.RUN:
            raise UserError(
                f"{line}: several values, but `{self.name.replace('_', '-')}` runs one configuration. "
                f"Write a list as {key}=[...], a grid with `forgetbench sweep`, and a text with a comma in it as "
                f"{as_argument(key, line.partition('=')[2])}"
            )
        if key in GROUPS[self.name] and override.package is None:
            for choice in self._choices(override):
                refusals.check_choice(self.name, key, choice, self.manifests)

    @staticmethod
    def _choices(override: Override) -> list[str]:
        """The options that a group's override names, one by one."""
        if override.is_sweep_override():
            is_glob = override.value_type is ValueType.GLOB_CHOICE_SWEEP
            return [] if is_glob else [str(parse([f"x={one}"])[0].value()) for one in override.sweep_string_iterator()]
        if isinstance(override.value(), dict):
            raise UserError(
                f"{override.input_line}: give the keys one by one, such as {override.key_or_group}.<key>=..."
            )
        value = override.value()
        return [value if isinstance(value, str) else str(override.get_value_element_as_str())]

    def compose(self) -> DictConfig:
        """The composed config, types and keys checked, values not yet."""
        config = self._composed()
        if displaced := self._displaced(config):
            self.lines += displaced
            config = self._composed()
        HydraConfig.instance().set_config(config)
        for override in self.parsed:
            key, added = override.key_or_group, override.is_add() or override.is_force_add()
            if added and not override.is_hydra_override() and not refusals.knows(config, key):
                raise refusals.unknown_key(key, config)
        self._check_safe(config)
        return config

    def _check_safe(self, config: DictConfig) -> None:
        """Refuse what would run code or write a secret to disk."""
        HydraConfig.instance().set_config(config)
        try:
            content = resolved(config)
        except REFUSED as error:
            raise self._refusal(error, self.parsed) from error
        check_targets(content)
        check_secrets(content)

    def _composed(self) -> DictConfig:
        try:
            return self.hydra.compose_config(self.name, self.lines, self.mode, with_log_configuration=False)
        except REFUSED as error:
            raise self._refusal(error, self.parsed) from error

    def _displaced(self, config: DictConfig) -> list[str]:
        """Overrides that empty the other ways of choosing checkpoints, where one is given and a file has another."""
        ways = {f"recipe.checkpoints.{name}": empty for name, empty in _WAYS.items()}
        given = ways.keys() & {override.key_or_group for override in self.parsed}
        if len(given) != 1 or not OmegaConf.select(config, next(iter(given))):
            return []
        others = [key for key in ways if key not in given and OmegaConf.select(config, key)]
        return [f"{key}={ways[key]}" for key in others]

    def _refusal(self, error: Exception, parsed: Sequence[Override]) -> UserError:
        if refused := refusal(error):
            return refused
        given = [override.key_or_group for override in parsed]
        chosen = [o for o in parsed if o.key_or_group in GROUPS[self.name] and not o.is_sweep_override()]
        groups = [str(o.input_line) for o in chosen] + [
            line for line in self.lines if line.startswith("hydra.searchpath")
        ]
        found = re.search(r"Could not override '([^']+)'", str(error))
        try:
            plain = self.hydra.compose_config(self.name, groups, RunMode.RUN, with_log_configuration=False)
        except REFUSED:
            return refusals.explain(error, given, {})
        if found:
            return refusals.unknown_key(found.group(1), plain)
        return refusals.explain(error, given, plain.hydra.runtime.choices)

    def check(self, config: DictConfig) -> Any:
        """The typed config.

        Raises:
            UserError: values are missing or contradict each other.
        """
        HydraConfig.instance().set_config(config)
        choices = config.hydra.runtime.choices
        given = [override.key_or_group for override in self.parsed]
        plain = without_hydra(config)
        refusals.check_shadowing(choices)
        if missing := OmegaConf.missing_keys(plain):
            lines = [
                f"{key} ({refusals.origin(key, (), choices)}): no value; add {key}=<value>" for key in sorted(missing)
            ]
            raise UserError("\n".join(lines))
        try:
            typed = OmegaConf.to_object(plain)
        except OmegaConfBaseException as error:
            raise refusals.explain(error, given, choices) from error
        assert isinstance(typed, FinetuneConfig | EvalMatrixConfig | ScoreConfig)
        for key, value in misplaced(typed):
            raise UserError(
                f"{key} ({refusals.origin(key, given, choices)}): {value!r} stands where one name is expected."
            )
        trains = isinstance(typed, FinetuneConfig)
        brought = ("model", "data", "name", *(("recipe", "seed", "outputs", "manifests") if trains else ()))
        ignored = [key for key in given if key.partition(".")[0] in brought]
        if isinstance(typed, FinetuneConfig) and typed.run is None:
            refusals.check_operation(typed.method, str(choices.get("recipe")))
        if typed.run and ignored and self.mode is RunMode.RUN:
            raise UserError(
                f"{ignored[0]}: run={typed.run} brings its own {' and '.join(brought)}; drop one of the two."
            )
        if typed.run and not trains and "outputs" in given:
            _check_outputs(typed.run, typed.outputs)
        if (
            "recipe.steps" in given
            and isinstance(typed, FinetuneConfig)
            and all(one.steps or one.epochs for one in typed.data.stages)
        ):
            raise UserError(
                f"recipe.steps (command line): every stage of data={choices.data} has a length of its own; "
                "set data.stages=[{set: <name>, steps: <n>}, ...] instead."
            )
        if found := problems(cast(FinetuneConfig, typed), self.catalogue):
            raise UserError(
                "\n".join(f"{p.key} ({refusals.origin(p.key, given, choices)}): {p.message}" for p in found)
            )
        return typed

    def points(self, sweep_config: DictConfig) -> list[list[str]]:
        """The overrides of every point that the basic sweeper will launch; other sweepers choose as they go."""
        if self.mode is RunMode.RUN or not str(sweep_config.hydra.sweeper._target_).endswith(BasicSweeper.__name__):
            return []
        params = [f"{key}={value}" for key, value in (sweep_config.hydra.sweeper.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.hydra.config_loader)
        parsed = parser.parse_overrides([*params, *sweep_config.hydra.overrides.task])
        batches = BasicSweeper.split_arguments(parsed, None)
        return batches[0]

    def check_points(self, sweep_config: DictConfig) -> list[str]:
        """Compose and check every point that is known in advance, so that a grid is refused as a whole or runs.

        Returns:
            The points' folder names; none where a sweeper decides on its points as it goes.
        """
        points = self.points(sweep_config)
        if not points:
            self.check(sweep_config)
        folders: dict[str, list[str]] = {}
        checked: list[Any] = []
        for point in points:
            parsed = parse(point)
            try:
                config = self.hydra.config_loader.load_sweep_config(sweep_config, point)
                HydraConfig.instance().set_config(config)
                folder = str(config.hydra.sweep.subdir)
            except REFUSED as error:
                raise self._refusal(error, parsed) from error
            if folder in folders:
                raise UserError(
                    f"Two points are the same training ({folder}): {' '.join(folders[folder])} and {' '.join(point)}.\n"
                    "Sweep over keys of the recipe, data, model, method or seed; the matrix is one for all points."
                )
            folders[folder] = point
            try:
                self._check_safe(config)
                checked.append(self.check(config))
            except UserError as error:
                raise UserError(f"Point {' '.join(point)}:\n{error}") from error
        if unused := [] if self.mode is RunMode.RUN else list(unused_mix(checked)):
            raise UserError(f"{unused[0].key} (every point): {unused[0].message}")
        HydraConfig.instance().set_config(sweep_config)
        return list(folders)


def _check_outputs(run: str, outputs: str) -> None:
    """Refuse to keep a run's cells where nothing that reads the run looks for them."""
    if not Path(run).resolve().is_relative_to(Path(outputs).resolve()):
        raise UserError(
            f"outputs={outputs}: run={run} is not in it, and a run's cells are kept above the run, where `report` and "
            "`compare` look for them; drop outputs."
        )
