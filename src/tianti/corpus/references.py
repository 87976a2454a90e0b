"""What all groups are compared with: evaluation texts, a classifier, an n-gram model; made once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tianti.corpus.config import PrepareConfig, Source
from tianti.corpus.sources import source_state
from tianti.files import read_json, write_json

REFERENCES = "references"
_MADE = "made.json"


def build_references(config: PrepareConfig, folder: Path) -> str:
    """Makes what is not there yet, or was made from other files, and gives a hash of all of it.

    Raises:
        UserError: something to be compared with cannot be read.
    """
    made = read_json(folder / _MADE) if (folder / _MADE).is_file() else {}
    wanted: dict[str, str] = {}
    if config.decontaminate.against:
        from tianti.corpus.decontaminate import INDEX, build_index

        wanted[INDEX] = _state(config.decontaminate.against, config.decontaminate.model_dump_json())
        if made.get(INDEX) != wanted[INDEX]:
            build_index(config.decontaminate, folder / INDEX)
    if (learned := config.quality.classifier) is not None:
        from tianti.corpus.learned import CLASSIFIER, train_classifier

        wanted[CLASSIFIER] = _state([Source(path=learned.good), Source(path=learned.bad)])
        if made.get(CLASSIFIER) != wanted[CLASSIFIER]:
            train_classifier(learned, folder / CLASSIFIER)
    if (likely := config.quality.perplexity) is not None:
        from tianti.corpus.learned import PERPLEXITY, train_perplexity

        wanted[PERPLEXITY] = _state([Source(path=likely.reference)])
        if made.get(PERPLEXITY) != wanted[PERPLEXITY]:
            train_perplexity(likely, folder / PERPLEXITY)
    if wanted != made:
        write_json(folder / _MADE, wanted)
    return json.dumps(wanted, sort_keys=True)


def _state(sources: list[Source], settings: str = "") -> str:
    files = [source_state(source) for source in sources]
    return hashlib.sha256((json.dumps(files) + settings).encode()).hexdigest()
