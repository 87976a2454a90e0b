"""An endpoint is asked as a network is; when it dies, what it answered stays."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from tests.judge.test_tasks import judged
from tianti.errors import UserError
from tianti.evaluate.models import endpoint as module
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.endpoint import Endpoint
from tianti.judge import evaluation


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_POST(self):
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked += 1
        if server.asked > server.lives:
            self.send_error(server.error)
            return
        network, prompt = server.network, asked["prompt"]
        answer = {"text": "", "logprobs": None}
        if not asked.get("echo"):
            [made] = network.generate(
                [prompt], max_tokens=asked["max_tokens"], stop=[], temperature=0.0, seed=0
            )
            answer["text"] = made.text
        elif server.logprobs:
            answer["logprobs"] = self.logprobs(network, prompt)
        body = json.dumps({"choices": [answer]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    @torch.no_grad()
    def logprobs(network, prompt):
        ids = network.tokenizer.encode(prompt)
        tokens = [network.tokenizer.decode([one]) for one in ids]
        read = torch.tensor([[network.tokenizer.end_of_text, *ids[:-1]]])
        logs = network._model.logits(network._model(read))[0].log_softmax(-1)
        offsets, place = [], 0
        for token in tokens:
            offsets.append(place)
            place += len(token)
        return {
            "tokens": tokens,
            "text_offset": offsets,
            "token_logprobs": [logs[n, one].item() for n, one in enumerate(ids)],
            "top_logprobs": [{"best": row.max().item()} for row in logs],
        }


@pytest.fixture
def server(network, monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.network, made.asked, made.lives, made.error, made.logprobs = network, 0, 10**9, 503, True
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def endpoint(server):
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1/", "tiny")


def test_it_answers_as_the_network_behind_it(server, network):
    asked = [Request("The statement", " is executed"), Request("", "for the statement")]
    for one, other in zip(
        endpoint(server).likelihoods(asked), network.likelihoods(asked), strict=True
    ):
        assert one.nats == pytest.approx(other.nats, abs=1e-4)
        assert (one.tokens, one.bytes, one.greedy) == (other.tokens, other.bytes, other.greedy)
    settings = {"max_tokens": 4, "stop": ["\n"], "temperature": 0.0, "seed": 0}
    assert endpoint(server).generate(["The"], **settings) == network.generate(["The"], **settings)


def test_when_it_dies_what_it_answered_stays(server, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "_CHUNK_ITEMS", 4)
    server.lives = 30
    with pytest.raises(UserError, match=r"does not answer \(503.*goes on from the last"):
        judged(endpoint(server), tasks, tmp_path / "out", ("pairs",))
    [kept] = (tmp_path / "out" / "pairs").glob("*/items.jsonl")
    assert 0 < len(kept.read_text("utf-8").splitlines()) < 24
    server.lives, before = 10**9, server.asked
    found = judged(endpoint(server), tasks, tmp_path / "out", ("pairs",))["pairs"]
    assert found["n"] == 24
    assert server.asked - before < 2 * 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": False}, "no log-probabilities of a prompt"),
        ({"lives": 0, "error": 404}, r"does not answer \(404"),
    ],
)
def test_what_it_cannot_do_is_said(server, change, message):
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(UserError, match=message):
        endpoint(server).likelihoods([Request("a", " b")])
    if "lives" in change:
        assert server.asked == 1, "asking again would not help"


def test_where_nothing_listens_is_said(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    with pytest.raises(UserError, match="does not answer"):
        Endpoint("http://127.0.0.1:9", "tiny").likelihoods([Request("a", " b")])
