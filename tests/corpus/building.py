"""Builds a corpus in tests: both stages, one after the other."""

from __future__ import annotations

from tianti.corpus.config import CorpusStageConfig
from tianti.corpus.stage import build_corpus, prepare_documents


def build_from(config, out):
    documents = out.with_name(out.name + "-documents")
    prepare_documents(config, {}, documents)
    out.mkdir(exist_ok=True)
    return build_corpus(CorpusStageConfig(config), {"documents": documents}, out)
