"""One command's overrides inside an initialised Hydra: compose them, check them, list a grid's points."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
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
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from forgetbench.compose import implied, refusals
from forgetbench.compose.checks import problems
from forgetbench.compose.checks.recipe import unused_mix
from forgetbench.compose.config_files import files_checked
from forgetbench.compose.overrides import parse, quoted, register_resolvers
from forgetbench.compose.run_defaults import RunDefaults, register, run_defaults
from forgetbench.compose.short_forms import LongForms, long_forms
from forgetbench.compose.targets import check_secrets, check_targets, refusal, resolved
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ScoreConfig
from forgetbench.core.errors import UserError
from forgetbench.core.nested import misplaced
from forgetbench.core.options import GROUPS, USER_CONF, USER_MANIFESTS, config_files, manifest_names
from forgetbench.core.override_text import as_text
from forgetbench.core.paths import shipped
from forgetbench.core.references import literal
from forgetbench.data.catalogue import Catalogue
from forgetbench.methods.registry import SCHEMAS
from forgetbench.runs.scored import LAST, Scored
from forgetbench.terminal.console import note

REFUSED = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError)
"""What composing raises on a bad override or a bad file."""


_MAPPINGS = ("search.space", "search.validation", "matrix.skip")
"""Keys that hold a mapping of any names, to which a command line adds."""


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of the command's own keys, its dataclass type kept."""
    plain = copy.deepcopy(config)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    return plain


@contextmanager
def open_session(kind: type[Any], overrides: Sequence[str]) -> Iterator[Session]:
    """Hydra with the shipped and the user's configs, and one `data` option per manifest."""
    name = next(name for name, schema in SCHEMAS.items() if schema is kind)
    if words := [word for word in overrides if "=" not in word and not word.startswith("~")]:
        raise refusals.bare_word(name, words[0], USER_MANIFESTS)
    register_resolvers()
    parsed = parse(overrides)
    chosen = [override.value() for override in parsed if override.key_or_group == "manifests"]
    defaults = run_defaults(kind, parsed)
    # Any other value is of the wrong type, which composing says better.
    typed = chosen[-1] if chosen and isinstance(chosen[-1], list) else defaults.manifests or USER_MANIFESTS
    manifests = [str(folder) for folder in typed]
    forms = long_forms(parsed, manifests)
    with _separate_hydra(), files_checked():
        _register(manifests, forms.sequences)
        register(defaults.scored)
        with initialize_config_dir(str(shipped("conf")), job_name="forgetbench", version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield Session(hydra, name, forms, manifests, defaults)


@contextmanager
def _separate_hydra() -> Iterator[None]:
    """Set the caller's Hydra state aside: the caller may be a Hydra program with its own configuration and groups."""
    config, hydra, version = HydraConfig.instance(), GlobalHydra.instance(), VersionBase.instance()
    groups = ConfigStore.instance().repo
    before = config.cfg, hydra.hydra, version.version_base
    saved_groups: dict[str, Any] = {name: dict(groups[name]) for name in ("data", "matrix") if name in groups}
    hydra.clear()
    try:
        yield
    finally:
        for name in ("data", "matrix"):
            groups.pop(name, None)
        groups.update(saved_groups)
        config.cfg, version.version_base = before[0], before[2]
        GlobalHydra.instance().hydra = before[1]


def _register(manifests: Sequence[str], sequences: Mapping[str, list[str]]) -> None:
    store = ConfigStore.instance()
    _register_schemas()
    # The store outlives a call, and the next call may be made in another folder.
    store.repo.pop("data", None)
    files = config_files("data")
    single_sets = {name: [name] for name in manifest_names(manifests) if name not in files}
    for name, sets in {**single_sets, **sequences}.items():
        # A plain node: making a typed one for each of a hundred manifests would take most of a command's start.
        stages = [{"set": literal(set_name)} for set_name in sets]
        node = {"defaults": ["/schema/data@_here_", "_self_"], "stages": stages}
        store.store(group="data", name=name, node=node, provider="data_manifests")


@cache
def _register_schemas() -> None:
    for name, schema in SCHEMAS.items():
        group, _, option = f"schema/{name}".rpartition("/")
        ConfigStore.instance().store(group=group, name=option, node=schema, provider="forgetbench")


class Session:
    """One command's overrides inside an initialised Hydra."""

    def __init__(self, hydra: Hydra, name: str, forms: LongForms, manifests: list[str], defaults: RunDefaults) -> None:
        self.hydra = hydra
        self.name = name
        self.mode = RunMode.MULTIRUN if name == "sweep" else RunMode.RUN
        self.parsed = parsed = forms.overrides
        self.sequences = forms.sequences
        self.manifests = manifests
        self.catalogue = Catalogue(manifests)
        self.defaults = defaults
        self.notes: list[str] = []
        """What was decided for the user; said once, when the configuration can run."""
        self.lines = [*defaults.overrides, *map(_line, parsed)]
        user_conf = USER_CONF.resolve()
        if user_conf.is_dir() and user_conf != shipped("conf").resolve() and not self._has_override("hydra.searchpath"):
            self.lines.append(f"hydra.searchpath=[{quoted(f'file://{user_conf}')}]")
        check_secrets({override.key_or_group: str(override.input_line) for override in parsed})
        for override in parsed:
            self._check_override(override)
        if self.name != "score" and self._has_run_override() and not self._has_override("model.path"):
            self.lines.append("model.path=''")  # the base is where the run says
        if self.mode is RunMode.MULTIRUN:
            self.lines.append("hydra.mode=MULTIRUN")

    def _has_override(self, key: str) -> bool:
        return any(override.key_or_group == key for override in self.parsed)

    def _has_run_override(self) -> bool:
        return any(override.key_or_group == "run" and override.value() is not None for override in self.parsed)

    def _check_override(self, override: Override) -> None:
        key, line = override.key_or_group, str(override.input_line)
        if key == "hydra.mode":
            raise UserError(f"{line}: the command decides the mode; `sweep` runs many points, the others one.")
        if override.is_delete():
            raise UserError(f"{line}: a key cannot be deleted; give it a value, such as {key}=null.")
        if override.is_sweep_override() and self.mode is RunMode.RUN:
            raise refusals.several_values(self.name, key, line)
        if override.is_sweep_override() and key in ("sweep", "launcher"):
            raise UserError(f"{line}: one {key} at a time; give the commands one by one.")
        if key in GROUPS[self.name] and override.package is None:
            for choice in self._choices(override):
                if (key, choice) == ("matrix", LAST) and self.defaults.scored:
                    continue
                if choice not in self.sequences:
                    refusals.check_choice(self.name, key, choice, self.manifests)

    def _choices(self, override: Override) -> list[str]:
        """The options that a group's override names, one by one."""
        if override.is_sweep_override():
            if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
                return []
            return [str(parse([f"x={text}"])[0].value()) for text in override.sweep_string_iterator()]
        if isinstance(override.value(), dict):
            raise UserError(
                f"{override.input_line}: give the keys one by one, such as {override.key_or_group}.<key>=..."
            )
        value = override.value()
        if isinstance(value, list):
            raise refusals.several_options(self.name, override.key_or_group, value)
        return [value if isinstance(value, str) else str(override.get_value_element_as_str())]

    def compose(self) -> DictConfig:
        """The composed config, types and keys checked, values not yet."""
        config = self._composed()
        if lines := self._implied(config):
            self.lines += lines
            config = self._composed()
        HydraConfig.instance().set_config(config)
        for override in self.parsed:
            key, added = override.key_or_group, override.is_add() or override.is_force_add()
            if added and not override.is_hydra_override() and not refusals.knows(config, key):
                raise refusals.unknown_key(self.name, key, config)
        self._check_safe(config)
        return config

    def _implied(self, config: DictConfig) -> list[str]:
        """Overrides that follow from those given; what they add to the configuration counts as given, too."""
        ratio = implied.mix_ratio(self.parsed, config)
        self.notes += [
            f"{line}: recipe.mix.data was given without a ratio; half of the training instances come from it."
            for line in ratio
        ]
        settings = [*implied.displaced(self.parsed, config), *ratio]
        self.parsed = [*self.parsed, *parse(settings)]
        return [*settings, *(implied.sweep_names(self.parsed, config) if self.mode is RunMode.MULTIRUN else ())]

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

    def _refusal(self, error: Exception, parsed: Sequence[Override]) -> UserError:
        if refused := refusal(error):
            return refused
        given = _typed_values(parsed)
        groups = [
            str(override.input_line)
            for override in parsed
            if override.key_or_group in GROUPS[self.name] and not override.is_sweep_override()
        ]
        groups += [line for line in self.lines if line.startswith("hydra.searchpath")]
        match = re.search(r"Could not override '([^']+)'", str(error))
        try:
            plain = self.hydra.compose_config(self.name, groups, RunMode.RUN, with_log_configuration=False)
        except REFUSED:
            return refusals.explain(error, given, {})
        if match:
            return refusals.unknown_key(self.name, match.group(1), plain)
        return refusals.explain(error, given, plain.hydra.runtime.choices)

    def check(self, config: DictConfig) -> Any:
        """The typed config.

        Raises:
            UserError: values are missing or contradict each other.
        """
        HydraConfig.instance().set_config(config)
        choices = config.hydra.runtime.choices
        given = _typed_values(self.parsed)
        plain = without_hydra(config)
        refusals.check_shadowing(choices)
        try:
            if missing := OmegaConf.missing_keys(plain):
                lines = [
                    f"{key} ({refusals.origin(key, (), choices)}): no value; add {key}=<value>"
                    for key in sorted(missing)
                ]
                raise UserError("\n".join(lines))
            typed = OmegaConf.to_object(plain)
        except OmegaConfBaseException as error:
            raise refusals.explain(error, given, choices) from error
        assert isinstance(typed, FinetuneConfig | EvalMatrixConfig | ScoreConfig)
        for key, value in misplaced(typed):
            raise UserError(
                f"{key} ({refusals.origin(key, given, choices)}): {as_text(value)} is no name or number; write [a,b]."
            )
        trains = isinstance(typed, FinetuneConfig)
        run_keys = ("model", "data", "name", *(("recipe", "seed", "outputs", "manifests") if trains else ()))
        ignored = [key for key in given if key.partition(".")[0] in run_keys and key != "model.path"]
        if isinstance(typed, FinetuneConfig) and typed.run is None:
            refusals.check_operation(typed.method, str(choices.get("recipe")))
        if typed.run and ignored and self.mode is RunMode.RUN:
            raise UserError(
                f"{ignored[0]}: run={typed.run} brings its own {' and '.join(run_keys)}; drop one of the two. "
                "Only model.path may be given, where the run's base has moved."
            )
        if typed.run and not trains and "outputs" in given:
            _check_outputs(typed.run, typed.outputs, self.defaults.scored)
        if (
            "recipe.steps" in given
            and isinstance(typed, FinetuneConfig)
            and all(stage.steps or stage.epochs for stage in typed.data.stages)
        ):
            raise UserError(
                f"recipe.steps (command line): every stage of data={choices.data} has a length of its own; "
                "set data.stages=[{set: <name>, steps: <n>}, ...] instead."
            )
        if contradictions := problems(cast(FinetuneConfig, typed), self.catalogue):
            lines = [
                f"{problem.key} ({refusals.origin(problem.key, given, choices)}): {problem.message}"
                for problem in contradictions
            ]
            raise UserError("\n".join(lines))
        while self.notes:
            note(self.notes.pop(0))
        return typed

    def points(self, sweep_config: DictConfig) -> list[list[str]]:
        """The overrides of every point that the basic sweeper will launch; other sweepers choose as they go."""
        if self.mode is RunMode.RUN or not str(sweep_config.hydra.sweeper._target_).endswith(BasicSweeper.__name__):
            return []
        params = [f"{key}={value}" for key, value in (sweep_config.hydra.sweeper.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.hydra.config_loader)
        given = cast(list[str], OmegaConf.to_container(sweep_config.hydra.overrides.task, resolve=False))
        parsed = parser.parse_overrides([*params, *given])
        try:
            batches = BasicSweeper.split_arguments(parsed, None)
        except HydraException as error:
            raise UserError(
                "A range without steps (interval) is no grid; give values with commas between them, or search it: "
                "sweep=search search.space={<key>: {log: [<low>, <high>]}}."
            ) from error
        return batches[0]

    def check_points(self, sweep_config: DictConfig) -> list[str]:
        """Compose and check every point that is known in advance, so that a grid is refused as a whole or runs.

        Returns:
            The points' folder names; none where a sweeper decides on its points as it goes.
        """
        points = self.points(sweep_config)
        if not points:
            self.check(sweep_config)
        axes, folders = implied.axes(self.parsed, sweep_config), dict[str, list[str]]()
        checked: list[Any] = []
        for point in points:
            config, folder = self._load_point(sweep_config, point)
            varied = [str(override.input_line) for override in parse(point) if override.key_or_group in axes]
            if folder in folders:
                raise refusals.same_folder(folder, folders[folder], varied)
            folders[folder] = varied
            checked.append(self._check_point(config, varied))
        if unused := [] if self.mode is RunMode.RUN else list(unused_mix(checked)):
            raise UserError(f"{unused[0].key} (every point): {unused[0].message}")
        HydraConfig.instance().set_config(sweep_config)
        return list(folders)

    def check_point(self, sweep_config: DictConfig, given: Sequence[str], varied: Sequence[str]) -> tuple[str, Any]:
        """One point of a sweep: its folder's name and its typed config.

        Args:
            sweep_config: of the sweep.
            given: overrides that all points share.
            varied: overrides of this point alone.

        Raises:
            UserError: it cannot run.
        """
        config, folder = self._load_point(sweep_config, [*given, *varied])
        typed = self._check_point(config, varied)
        HydraConfig.instance().set_config(sweep_config)
        return folder, typed

    def _load_point(self, sweep_config: DictConfig, point: Sequence[str]) -> tuple[DictConfig, str]:
        try:
            config = self.hydra.config_loader.load_sweep_config(sweep_config, list(point))
            HydraConfig.instance().set_config(config)
            return config, str(config.hydra.sweep.subdir)
        except REFUSED as error:
            raise self._refusal(error, parse(point)) from error

    def _check_point(self, config: DictConfig, varied: Sequence[str]) -> Any:
        try:
            self._check_safe(config)
            return self.check(config)
        except UserError as error:
            raise UserError(f"Point {' '.join(varied)}:\n{error}") from error


def _line(override: Override) -> str:
    """An override as Hydra gets it; without the signs of addition, it refuses names that a mapping lacks."""
    line = str(override.input_line)
    return f"++{line}" if override.key_or_group in _MAPPINGS and not line.startswith(("+", "~")) else line


def _check_outputs(run: str, outputs: str, scored: Scored | None) -> None:
    """Refuse to write a run's cells where `report` and `compare` would not look for them."""
    stored = scored.outputs.resolve() if scored else None
    if stored and (stored / ".cells").is_dir() and stored != Path(outputs).resolve():
        raise UserError(f"outputs={outputs}: the cells of run={run} are in {stored}; drop outputs.")
    if not Path(run).resolve().is_relative_to(Path(outputs).resolve()):
        raise UserError(
            f"outputs={outputs}: run={run} is not in it, and a run's cells are kept above the run, where `report` and "
            "`compare` look for them; drop outputs."
        )


def _typed_values(parsed: Sequence[Override]) -> dict[str, str]:
    """Key -> value of every override, as it was typed."""
    return {override.key_or_group: str(override.input_line).partition("=")[2] for override in parsed}
