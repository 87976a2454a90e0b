from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tianti.runs import figures
from tianti.runs.report import write_report


@pytest.fixture(scope="module")
def html(finished_run):
    return (finished_run / "report.html").read_text("utf-8")


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_report_loads_nothing_from_elsewhere(html):
    parser = _Tags()
    parser.feed(html)
    for tag, attributes in parser.tags:
        for name in ("src", "href", "srcset", "action"):
            assert name not in attributes, (tag, attributes)
    policy = next(a["content"] for t, a in parser.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_the_report_holds_its_figures_in_both_languages(html):
    found = dict(re.findall(r'data-figures="([^"]+)">(.*?)</script>', html, re.S))
    assert set(found) == {"en", "zh-CN"}
    for text in found.values():
        assert set(json.loads(text)) == {
            *("bits", "curves", "funnel", "stages"),
            *("languages", "lengths"),
        }
    assert "bits per byte (less is better)" in found["en"]
    assert "每字节比特数" in json.dumps(json.loads(found["zh-CN"]), ensure_ascii=False)


def test_text_from_the_corpus_cannot_become_markup(finished_run, tmp_path):
    results = json.loads((finished_run / "results.json").read_text())
    results["name"] = "<script>alert(1)</script>"
    results["corpus"]["funnel"]["dropped"]["</script><b>"] = {"documents": 1, "bytes": 1}
    write_report(tmp_path / "r.html", finished_run, results)
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert "</script><b>" not in text


def test_a_report_of_some_stages_is_a_report(finished_run, tmp_path):
    results = json.loads((finished_run / "results.json").read_text())
    for name in ("evaluate", "train", "tokens", "generate"):
        results.pop(name)
    results["model"] = None
    write_report(tmp_path / "r.html", tmp_path, results)
    assert "report" not in (tmp_path / "r.html").read_text("utf-8")[:200]


def test_curves_follow_the_log():
    log = [
        {"step": s, "tokens": s * 10, "loss": 5.0 - s, "learning_rate": 0.1} for s in range(1, 4)
    ]
    log.append({"step": 3, "tokens": 30, "validation_bits_per_byte": 1.5})
    log.append({"step": 4, "tokens": 40, "loss": None, "learning_rate": 0.1})
    raw, smooth, validation, rate = figures.training_curves(log, str)["data"]
    assert raw["x"] == [10, 20, 30]
    assert raw["y"] == [4.0, 3.0, 2.0]
    assert smooth["y"][0] == pytest.approx(4.0)
    # Weights 1 : 0.95 : 0.95² over 2, 3, 4.
    assert smooth["y"][2] == pytest.approx((2 + 3 * 0.95 + 4 * 0.95**2) / (1 + 0.95 + 0.95**2))
    assert (validation["x"], validation["y"]) == ([30], [1.5])
    assert rate["y"] == [0.1] * 3


def test_long_curves_are_thinned_and_keep_their_end():
    kept = figures._thinned(list(range(10_001)))
    assert len(kept) <= 2_502
    assert kept[-1] == 10_000


def log_of(losses, validations, every):
    rows = []
    for step, loss in enumerate(losses, 1):
        rows.append({"step": step, "tokens": 10 * step, "loss": loss, "learning_rate": 0.1})
        if step % every == 0:
            value = validations[step // every - 1]
            rows.append({"step": step, "tokens": 10 * step, "validation_bits_per_byte": value})
    return rows


@pytest.mark.parametrize(
    ("last_loss", "validations", "parted"),
    [
        (1.0, [3.0, 2.0, 2.1, 2.2, 2.3], 40),
        (1.0, [3.0, 2.5, 2.3, 2.2, 2.1], None),
        (1.0, [3.0, 2.5, 2.0, 2.2, 2.1], 60),
        (1.0, [3.0, 2.5, 2.4, 2.0, 2.1], None),
        # The loss rose too: that is no learning by heart.
        (9.0, [3.0, 2.0, 2.1, 2.2, 2.3], None),
    ],
)
def test_where_train_and_validation_part_is_marked(last_loss, validations, parted):
    losses = [5.0 + (last_loss - 5.0) * step / 100 for step in range(100)]
    log = log_of(losses, validations, every=20)
    found = figures.part_of_ways(log)
    assert (found and found["step"]) == parted
    drawn = figures.training_curves(log, str)
    words = [note["text"] for note in drawn["layout"]["annotations"]]
    assert words == (["train and validation part"] if parted else [])


def test_steps_that_were_skipped_or_gone_back_from_are_marked():
    log = log_of([5.0, 4.0, 3.0, 2.0], [2.0], every=4)
    log.insert(2, {"step": 3, "tokens": 30, "loss": None, "skipped": "spike"})
    log.insert(3, {"step": 1, "rewound_from": 3, "batch_offset": 2})
    drawn = figures.training_curves(log, str)["layout"]
    assert [(n["text"], n["x"]) for n in drawn["annotations"]] == [
        ("skipped", 30),
        ("gone back", 30),
    ]
    assert len(drawn["shapes"]) == 2


def test_reasons_are_told_in_both_languages(html):
    for language, reason in (("en", "set in the recipe"), ("zh-CN", "由配方设定")):
        assert f'<span lang="{language}">{reason}' in html
