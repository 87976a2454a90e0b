"""An OpenAI-compatible endpoint as one that answers."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tianti.errors import UserError
from tianti.evaluate.models.base import Likelihood, Request, Written
from tianti.messages import tr

AT_ONCE = 8
_TRIES, _PAUSE, _TIMEOUT = 4, 1.0, 300.0
_LATER = {408, 409, 429, 500, 502, 503, 504}


class Endpoint:
    """A server's `/completions`; the key is OPENAI_API_KEY, where there is one.

    Args:
        url: up to and with the version, such as `http://127.0.0.1:8000/v1`.
        model: the name the server knows it by.
    """

    step: int | None = None
    scores_first_token = False

    def __init__(self, url: str, model: str):
        self._url, self._model = url.rstrip("/"), model
        self.name = model
        # Weights behind a name cannot be seen: results hold for this address and name alone.
        self.identity = hashlib.sha256(f"{self._url} {model}".encode()).hexdigest()[:16]

    def likelihoods(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Gives the likelihoods of continuations, in order.

        Raises:
            UserError: the server does not answer, or gives no log-probabilities of a prompt.
        """
        return self._each(self._likelihood, requests)

    def texts(self, texts: Sequence[str]) -> list[Likelihood]:
        """Gives the likelihoods of whole texts, without their first token, which has no context."""
        return self._each(lambda text: self._likelihood(Request("", text)), texts)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: list[str],
        temperature: float,
        seed: int,
    ) -> list[Written]:
        """Gives what the model goes on with, in order."""

        def ask(prompt: str) -> Written:
            answer = self._post(
                prompt=prompt,
                max_tokens=max_tokens,
                stop=stop[:4],
                temperature=temperature,
                top_p=1,
                seed=seed,
            )
            text = answer.get("text")
            if not isinstance(text, str):
                raise self._strange(tr("there is no text in its answer"))
            for end in stop:
                text = text.split(end, 1)[0]
            return Written(text)

        return self._each(ask, prompts)

    def _each(self, ask: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(ask, given))

    def _likelihood(self, request: Request) -> Likelihood:
        whole = request.context + request.continuation
        answer = self._post(prompt=whole, max_tokens=0, echo=True, logprobs=1, temperature=0)
        found = answer.get("logprobs") or {}
        logs, places = found.get("token_logprobs"), found.get("text_offset")
        tokens, tops = found.get("tokens"), found.get("top_logprobs") or []
        if not logs or not places or not tokens or len(logs) != len(places):
            raise self._strange(tr("it gives no log-probabilities of a prompt"))
        begin = len(request.context)
        ends = [*places[1:], len(whole)]
        # The first token of all has no context, so no probability.
        asked = [n for n, end in enumerate(ends) if end > begin and logs[n] is not None]
        greedy = len(tops) == len(logs) and all(
            tops[n] and max(tops[n].values()) <= logs[n] + 1e-6 for n in asked
        )
        if not asked:
            raise self._strange(tr("it gives no log-probability of the only token of a text"))
        # What is not scored is not counted either.
        scored = whole[max(begin, places[asked[0]]) :]
        size = len(scored.encode("utf-8", "surrogatepass"))
        return Likelihood(-sum(logs[n] for n in asked), len(asked), size, greedy)

    def _post(self, **values: Any) -> dict[str, Any]:
        body = json.dumps({"model": self._model, **values}).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        reason: object = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                request = urllib.request.Request(f"{self._url}/completions", body, headers)
                with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                    choices = json.load(answer)["choices"]
                    return choices[0]
            except urllib.error.HTTPError as error:
                said = error.read().decode("utf-8", "replace")
                reason = f"{error.code} {' '.join(said.split())[:200]}"
                if error.code not in _LATER:
                    break
            except http.client.InvalidURL as error:
                raise UserError(tr("this is no URL ({reason})", reason=error)) from error
            except (OSError, http.client.HTTPException) as error:
                reason = error
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise self._strange(tr("its answer is none of completions")) from error
        raise UserError(
            tr("the endpoint does not answer ({reason})", reason=reason),
            where=self._url,
            remedy=tr("Start it again; the same command goes on from the last kept item"),
        )

    def _strange(self, what: str) -> UserError:
        return UserError(
            what,
            where=self._url,
            remedy=tr("Give a server with /completions, echo and logprobs, or tasks that generate"),
        )
