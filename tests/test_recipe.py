from __future__ import annotations

from pathlib import Path

import pytest

from tianti.errors import UserError
from tianti.recipe import Recipe, RecipeError

MINIMAL = """
name: my-model
corpus:
  sources:
    - path: texts/
train:
  budget: 10m
"""
ROOT = Path(__file__).parent.parent


def test_the_minimal_recipe_is_whole():
    recipe = Recipe.parse(MINIMAL)
    assert recipe.train.budget.amount == 600
    assert recipe.model.size is None


def test_1e_3_is_a_number():
    recipe = Recipe.parse(MINIMAL + "  learning_rate: 1e-3\n")
    assert recipe.train.learning_rate == 0.001
    assert Recipe.parse(MINIMAL, ["train.learning_rate=2e-4"]).train.learning_rate == 2e-4


def test_on_and_off_are_words_and_only_true_and_false_are_booleans():
    recipe = Recipe.parse(
        MINIMAL.replace("my-model", "no") + "  compile: off\n", ["corpus.dedup.exact=false"]
    )
    assert (recipe.name, recipe.train.compile, recipe.corpus.dedup.exact) == ("no", "off", False)


def test_every_mistake_is_told_at_once_with_line_path_and_guess():
    text = """nam: x
corpus:
  sources:
    - biltin: python-docs
train:
  optimizer: moun
  learning_rate: fast
  bugdet: 3m
  budget: 10
"""
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, origin="r.yaml")
    message = str(caught.value)
    for part in (
        "r.yaml:1: nam: unknown key",
        "did you mean 'name'?",
        "name: this key is missing",
        "r.yaml:4: corpus.sources.0.biltin: unknown key",
        "did you mean 'builtin'?",
        "r.yaml:6: train.optimizer: 'moun' is wrong",
        "did you mean 'muon'?",
        "r.yaml:7: train.learning_rate: 'fast' is wrong",
        "did you mean 'budget'?",
        "r.yaml:9: train.budget: 10 has no unit",
    ):
        assert part in message
    assert len(caught.value.mistakes) == 7


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "r:1: not YAML"),
        ("- a", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("name: a\nname: b", "stands here twice"),
        ("1: a", "keys are text"),
        ("name: a/b\ncorpus: {sources: [{path: x}]}", "becomes a folder"),
        ("name: !!python/object/apply:os.system [ls]", "not YAML"),
        ("name: a\ncorpus: {sources: []}", "corpus.sources"),
        ("name: a\ncorpus: {sources: [{path: x, builtin: python-docs}]}", "either path or builtin"),
        ("name: a\ncorpus: {sources: [{path: x, separator: '('}]}", "regular expression"),
        ("name: a\ncorpus: {sources: [{path: x}]}\nmodel: {head_dim: 3}", "must be even"),
    ],
)
def test_broken_recipes_say_what_is_wrong(text, part):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, origin="r")
    assert part in str(caught.value)


def test_overrides_reach_into_lists_and_make_sections():
    recipe = Recipe.parse(
        MINIMAL, ["corpus.sources.0.path=other", "generate.sampling.top_k=5", "model.size=3M"]
    )
    assert recipe.corpus.sources[0].path == "other"
    assert recipe.generate.sampling.top_k == 5
    assert recipe.model.size == 3_000_000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=.inf", "a number is wanted"),
        ("train.beta1=1.5", "1.5 is wrong: it must be less than 1.0"),
        ("train.beta1=-1", "-1 is wrong: it must be at least 0.0"),
        ("generate.samples=1.5", "1.5 is wrong: a whole number is wanted"),
        ("corpus.dedup.exact=perhaps", "'perhaps' is wrong: true or false is wanted"),
        ("device=tpu", "'tpu' is wrong: allowed: auto, cpu, cuda or cuda:N"),
        ("model=3", "3 is wrong: a mapping of keys is wanted"),
        ("generate.prompts=hello", "'hello' is wrong: a list is wanted"),
        ("train.lr=3", "did you mean 'learning_rate'?"),
        ("train.budget=abc epochs", "'abc' is not a number"),
    ],
)
def test_a_wrong_value_says_what_is_allowed_and_stands_in_no_line(override, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.parse(MINIMAL, [override], origin="r.yaml")
    assert str(caught.value).startswith(f"r.yaml: {override.partition('=')[0]}: ")


def test_mistakes_are_told_in_chinese(monkeypatch):
    monkeypatch.setenv("TIANTI_LANG", "zh-CN")
    with pytest.raises(RecipeError, match="必须小于 1"):
        Recipe.parse(MINIMAL, ["train.beta1=2"])
    with pytest.raises(RecipeError, match="没有单位"):
        Recipe.parse(MINIMAL, ["train.budget=2"])


@pytest.mark.parametrize("override", ["nonsense", "=3", "corpus.sources.7.path=x"])
def test_a_wrong_override_is_told(override):
    with pytest.raises(RecipeError):
        Recipe.parse(MINIMAL, [override])


def test_an_override_of_an_unknown_key_is_told():
    with pytest.raises(RecipeError, match="did you mean 'budget'"):
        Recipe.parse(MINIMAL, ["train.bugdet=3m"])


def test_a_missing_file_names_itself():
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        Recipe.load("nowhere.yaml")


def test_what_is_shown_reads_back_the_same():
    recipe = Recipe.parse(MINIMAL, ["train.budget=2000 steps", "model.depth=3"])
    assert Recipe.parse(recipe.as_yaml()) == recipe
    assert Recipe.parse(recipe.as_yaml(everything=False)) == recipe


def test_the_schema_describes_every_field():
    schema = Recipe.model_json_schema()
    for definition in [schema, *schema["$defs"].values()]:
        for name, field in definition["properties"].items():
            assert "description" in field or "$ref" in field, name


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.name)
def test_recipes_of_the_project_are_good(path):
    assert Recipe.load(path).name == path.stem


def test_environment_variables_fill_in_paths(monkeypatch):
    recipe = Recipe.parse("name: a\ncorpus: {sources: [{path: '${WHERE:-there}/x.txt'}]}")
    assert recipe.corpus.sources[0].expanded_path() == Path("there/x.txt")
    monkeypatch.setenv("WHERE", "/here")
    assert recipe.corpus.sources[0].expanded_path() == Path("/here/x.txt")
