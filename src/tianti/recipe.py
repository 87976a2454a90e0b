"""The recipe: one typed description of a model's life, gathered from the stages' settings."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tianti.corpus.config import CorpusConfig
from tianti.errors import UserError, from_os_error
from tianti.evaluate.config import EvaluateConfig
from tianti.generate.config import GenerateConfig
from tianti.messages import tr
from tianti.model.settings import ModelConfig
from tianti.tokens.config import TokenizerConfig
from tianti.train.config import LayoutConfig, TrainConfig
from tianti.tune.config import TuneConfig


class Recipe(BaseModel):
    """A model's life from text to samples; what is not said is derived."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    name: str = Field(min_length=1, description="Names the run: its folder is runs/NAME.")
    seed: int = Field(0, ge=0, description="Everything that is drawn is drawn from it.")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N."
    )
    base: str | None = Field(
        None, description="Directory of a model whose weights are adapted (tune)."
    )
    tune: TuneConfig | None = Field(
        None, description="A task that a network is adapted to, in place of a corpus."
    )
    corpus: CorpusConfig = Field(
        default_factory=lambda: CorpusConfig.model_construct(sources=[]),
        validate_default=True,
        description="What the documents are.",
    )
    tokenizer: TokenizerConfig = Field(
        default_factory=TokenizerConfig, description="How text becomes numbers."
    )
    model: ModelConfig = Field(default_factory=ModelConfig, description="The network.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="How it is trained.")
    layout: LayoutConfig = Field(
        default_factory=LayoutConfig, description="How training goes over many devices."
    )
    evaluate: EvaluateConfig = Field(
        default_factory=EvaluateConfig, description="What is measured at the end."
    )
    generate: GenerateConfig = Field(
        default_factory=GenerateConfig, description="The samples the run ends with."
    )

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpus_or_tune(cls, value: Any, info: ValidationInfo) -> Any:
        tuned = info.data.get("tune") is not None
        nothing = isinstance(value, CorpusConfig) and not value.sources
        if nothing and not tuned and "tune" in info.data:
            raise PydanticCustomError("missing", "Field required")
        if tuned and not nothing:
            raise ValueError(tr("a recipe has corpus or tune: name the run of the first as base"))
        return value

    @model_validator(mode="after")
    def _base_is_tuned(self) -> Recipe:
        if self.base is not None and self.tune is None:
            raise ValueError(tr("base is for recipes with tune"))
        if self.base is None and self.tune is not None and self.tune.words is not None:
            raise ValueError(tr("tune.words needs a base, which knows the words"))
        if self.base is None and self.tune is not None and self.tune.more_tokens is not None:
            raise ValueError(tr("tune.more_tokens needs a base, whose tokenizer grows"))
        if self.base is None and self.tune is not None and self.tune.method != "full":
            raise ValueError(
                tr("tune.method: {name} needs a base, which is frozen", name=self.tune.method)
            )
        return self

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, value: str) -> str:
        if (
            re.search(r'[/\\:*?"<>|\x00-\x1f]', value)
            or value.startswith(".")
            or value != value.strip()
        ):
            raise ValueError(
                tr('a name becomes a folder: no / \\ : * ? " < > | and no leading dot')
            )
        return value

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
        """Reads a YAML recipe and applies `a.b=c` overrides.

        Raises:
            RecipeError: with every mistake at once.
        """
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(
                tr(
                    "this is not UTF-8: byte 0x{byte:02x} at {place}",
                    byte=error.object[error.start],
                    place=error.start,
                ),
                where=path,
                remedy=tr("Convert it to UTF-8 (for example with iconv)"),
            ) from error
        except OSError as error:
            raise from_os_error(error, path) from error
        return cls.parse(text, overrides, str(path))

    @classmethod
    def parse(
        cls, text: str, overrides: list[str] | tuple[str, ...] = (), origin: str = "recipe"
    ) -> Recipe:
        """Reads a recipe from YAML text; see `load`."""
        try:
            node = yaml.compose(text, Loader=_RecipeLoader)
            values = yaml.load(text, Loader=_RecipeLoader)
        except yaml.YAMLError as error:
            raise RecipeError(origin, [_yaml_mistake(error)]) from error
        except RecursionError as error:
            raise RecipeError(origin, [Mistake("", tr("nested too deep"))]) from error
        if not isinstance(values, dict):
            raise RecipeError(
                origin,
                [Mistake("", tr("a recipe is a mapping such as: name: my-model"))],
            )
        mistakes = [m for item in overrides if (m := _override(values, item)) is not None]
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            lines = _lines_of(node)
            set_here = {item.partition("=")[0] for item in overrides}
            found = [_mistake(problem, lines, set_here) for problem in error.errors()]
            mistakes += sorted(found, key=lambda mistake: mistake.line or 0)
            raise RecipeError(origin, mistakes) from error
        if mistakes:
            raise RecipeError(origin, mistakes)
        return recipe

    def as_yaml(self, *, everything: bool = True) -> str:
        """Gives the recipe as YAML, with every default or only with what was said."""
        # What a tuning has nothing to do with.
        unused = {"corpus", "generate", "evaluate"} if self.tune else {"tune", "base"}
        values = json.loads(
            self.model_dump_json(
                exclude_unset=not everything, exclude_none=not everything, exclude=unused
            )
        )
        if self.tune is not None:
            # What is not said of a tuning's training is derived, also where pretraining has a
            # default: said here, it would count as asked for when the file is read again.
            values["train"] = json.loads(self.train.model_dump_json(exclude_unset=True))
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


class Mistake(typing.NamedTuple):
    """One thing wrong in a recipe."""

    path: str
    problem: str
    line: int | None = None


class RecipeError(UserError):
    """Everything wrong in a recipe, a line each."""

    def __init__(self, origin: str, mistakes: list[Mistake]):
        self.mistakes = mistakes
        super().__init__("\n".join(self._line(origin, mistake) for mistake in mistakes))

    @staticmethod
    def _line(origin: str, mistake: Mistake) -> str:
        place = origin if mistake.line is None else f"{origin}:{mistake.line}"
        return f"{place}: {mistake.path + ': ' if mistake.path else ''}{mistake.problem}"


class _RecipeLoader(yaml.SafeLoader):
    """YAML as people expect it, without duplicate keys.

    PyYAML reads YAML 1.1, in which `1e-3` is text and `on`, `off`, `yes` and `no` are booleans.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"keys are text, this is {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_RecipeLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _yaml_mistake(error: yaml.YAMLError) -> Mistake:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return Mistake("", tr("not YAML: {problem}", problem=problem), mark and mark.line + 1)


def read_value(text: str) -> Any:
    """Gives what a value means in a recipe; text that is no YAML stands for itself."""
    try:
        return yaml.load(text, Loader=_RecipeLoader) if text else None
    except yaml.YAMLError:
        return text


def _override(values: dict[str, Any], item: str) -> Mistake | None:
    """Sets `a.b=c` in nested mappings and lists; gives what is wrong with it, if anything."""
    path, equals, text = item.partition("=")
    if not equals or not path:
        return Mistake(item, tr("an override is written path=value, such as train.budget=3m"))
    keys = path.split(".")
    try:
        value = yaml.load(text, Loader=_RecipeLoader) if text else None
        target: Any = values
        for key in keys[:-1]:
            if isinstance(target, list):
                target = target[int(key)]
            else:
                if not isinstance(target.get(key), dict | list):
                    target[key] = {}
                target = target[key]
        if isinstance(target, list):
            target[int(keys[-1])] = value
        else:
            target[keys[-1]] = value
    except (yaml.YAMLError, ValueError, IndexError) as error:
        return Mistake(path, tr("cannot be set: {reason}", reason=error))
    return None


def _lines_of(node: yaml.Node | None, prefix: tuple[str | int, ...] = ()) -> dict[tuple, int]:
    """Gives the line of every path in a composed YAML document."""
    lines: dict[tuple, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*prefix, key.value)
            lines[path] = key.start_mark.line + 1
            lines.update(_lines_of(value, path))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*prefix, index)] = value.start_mark.line + 1
            lines.update(_lines_of(value, (*prefix, index)))
    return lines


# What other tools call a setting of ours.
_OTHER_NAMES = {
    "lr": "learning_rate",
    "batch_size": "batch_tokens",
    "n_layer": "depth",
    "num_layers": "depth",
    "num_hidden_layers": "depth",
    "layers": "depth",
    "hidden_size": "width",
    "n_embd": "width",
    "d_model": "width",
    "n_head": "num_heads",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_width",
    "block_size": "context",
    "max_seq_len": "context",
    "seq_len": "context",
    "params": "size",
    "parameters": "size",
    "max_steps": "budget",
    "epochs": "budget",
    "num_epochs": "budget",
    "steps": "budget",
    "vocabulary": "vocab_size",
    "data": "corpus",
    "dataset": "corpus",
    "text_field": "text",
    "text_column": "text",
    "max_new_tokens": "max_tokens",
}
_WHOLE_NUMBER, _NUMBER, _TEXT = "a whole number is wanted", "a number is wanted", "text is wanted"
# pydantic's kinds of error, in our words.
_CONSTRAINTS = {
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": "true or false is wanted",
    "bool_parsing": "true or false is wanted",
    "string_type": _TEXT,
    "string_too_short": _TEXT,
    "model_type": "a mapping of keys is wanted",
    "model_attributes_type": "a mapping of keys is wanted",
    "list_type": "a list is wanted",
    "too_short": "at least {min_length} is needed",
    "literal_error": "allowed: {expected}",
}


def _mistake(problem: Any, lines: dict[tuple, int], overrides: set[str]) -> Mistake:
    """Gives one pydantic error in our words: what is wrong, what is allowed, what was meant.

    Args:
        problem: from pydantic.
        lines: the line of every path of the file.
        overrides: paths set on the command line; they stand in no line.
    """
    location = tuple(problem["loc"])
    path = ".".join(str(part) for part in location)
    line = None
    if not any(path == item or path.startswith(item + ".") for item in overrides):
        line = next(
            (lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines),
            None,
        )
    kind = problem["type"]
    if kind == "extra_forbidden":
        allowed = _fields_at(location[:-1])
        name, names = str(location[-1]), ", ".join(allowed)
        guess = difflib.get_close_matches(_OTHER_NAMES.get(name, name), allowed, n=1)
        if guess:
            text = tr(
                "unknown key, did you mean {name!r}? Allowed here: {names}",
                name=guess[0],
                names=names,
            )
        else:
            text = tr("unknown key; allowed here: {names}", names=names)
        return Mistake(path, text, line)
    if kind == "missing":
        meaning = _description_at(location)
        return Mistake(path, tr("this key is missing: {meaning}", meaning=meaning), line)
    value, context = problem["input"], problem.get("ctx", {})
    message = problem["msg"].removeprefix("Value error, ")
    if kind in _CONSTRAINTS:
        message = tr(_CONSTRAINTS[kind], **context)
    if kind == "string_pattern_mismatch":
        message = tr("allowed: {expected}", expected=_description_at(location).rstrip("."))
    if kind == "literal_error" and isinstance(value, str):
        guess = difflib.get_close_matches(value, re.findall(r"'([^']*)'", message), n=1)
        if guess:
            message = tr("{message}; did you mean {name!r}?", message=message, name=guess[0])
    # Of settings that do not fit each other it is no one value that is wrong.
    if kind == "value_error" and (isinstance(value, dict) or repr(value) in message):
        return Mistake(path, message, line)
    shown = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return Mistake(path, tr("{value} is wrong: {message}", value=shown, message=message), line)


def _model_at(location: tuple) -> type[BaseModel] | None:
    model: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return None
        model = next((t for t in _types_in(field.annotation) if issubclass(t, BaseModel)), None)
        if model is None:
            return None
    return model


def _types_in(annotation: Any) -> list[type]:
    """Gives the classes inside an annotation such as `list[Source] | None`."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list, typing.Annotated):
        return [t for argument in typing.get_args(annotation) for t in _types_in(argument)]
    return [annotation] if isinstance(annotation, type) else []


def _fields_at(location: tuple) -> list[str]:
    model = _model_at(location)
    return list(model.model_fields) if model else []


def _description_at(location: tuple) -> str:
    model = _model_at(location[:-1])
    field = model.model_fields.get(location[-1]) if model else None
    return (field.description or "") if field else ""
