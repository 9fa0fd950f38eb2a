"""The engine's models as lm-evaluation-harness asks for them: log-likelihoods of continuations, and greedy text.

Tokens, start token and truncation are those of the harness' own Hugging Face model, so that both give the same numbers.
Requests with the same input (options of one token behind one context) are computed once, and so is a long context with
longer options behind it where the model is whole in memory; the others are batched by length. The head is applied to
the scored positions only. Streamed models score too: a pass per range of lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from transformers import GenerationConfig

from app.core.architectures import max_positions
from worker.engine.decoder import Decoder
from worker.engine.device import sequences_at_once
from worker.engine.errors import EngineError
from worker.engine.evaluation.inputs import CACHE_BYTES, Input, Question, batches, questions
from worker.engine.head import Head
from worker.engine.hidden_states import LayeredModel
from worker.engine.recipe import Over

T = TypeVar("T")
Within = Callable[[int, Callable[[LayeredModel, int], T]], T]
"""Does work on the model with a number of sequences at a time, fewer where memory runs out."""

Request = tuple[tuple[str, str], list[int], list[int]]
"""Context and continuation, as text and as token ids."""

_LOGIT_BYTES = 64 << 20  # float32 logits that exist at one time
_NEW_TOKENS = 256  # where a task names no number


@dataclass(frozen=True)
class Likelihood:
    """Of a continuation of `tokens` tokens: the sum in nats, and whether greedy decoding would write it.

    `prompt_nll` is the mean negative log-likelihood of everything behind the first token, where it was asked for.
    """

    sum: float
    greedy: bool
    tokens: int
    prompt_nll: float | None


class LanguageModel(TemplateLM):  # type: ignore[misc]
    """A model of the engine for the harness.

    Attributes:
        found: context and continuation -> what was found, with more than the harness takes.
    """

    def __init__(
        self, model: LayeredModel, within: Within[Any], over: Over, progress: Callable[[int, int], None]
    ) -> None:
        """Take a model.

        Args:
            model: gives tokenizer, config and device; the computing one is handed out by `within`.
            within: see `Within`.
            over: what `Likelihood.prompt_nll` is wanted for.
            progress: told (done, total) requests.
        """
        super().__init__()
        self.tokenizer = model.tokenizer
        self.max_length = max_positions(model.config)
        self.found: dict[tuple[str, str], Likelihood] = {}
        self._device = model.device
        self._within = within
        self._over = over
        self._progress = progress

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands in front of a continuation without a context: bos, or eos where there is none."""
        start = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if start is None else start)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the token ids of a text, with the special tokens that the tokenizer adds unless told otherwise."""
        if add_special_tokens is None and string.startswith(self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        flag: dict[str, Any] = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        ids: list[int] = self.tokenizer.encode(string, **flag)
        return ids

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return (log-likelihood in nats, whether it is the greedy continuation) of each request."""
        scored: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return scored

    def _loglikelihood_tokens(self, requests: list[Request], **_: Any) -> list[tuple[float, bool]]:
        inputs: dict[tuple[int, ...], Input] = {}
        for number, (text, context_ids, ids) in enumerate(requests):
            if not 0 < len(ids) <= self.max_length:
                raise EngineError(
                    "bad_task_data",
                    f"an option has {len(ids)} tokens, and the model has {self.max_length} positions: "
                    f"{text[1][:80]!r}; leave the question out",
                )
            whole = (context_ids + ids)[-(self.max_length + 1) :]
            # The first token of the option is predicted at the last one of the context.
            given = 0 if self._over == "prompt" else len(whole) - len(ids) - 1
            one = inputs.setdefault(tuple(whole[:-1]), Input(whole[:-1], given))
            one.given = min(one.given, given)
            one.requests.append(number)
        ordered = sorted(inputs.values(), key=lambda one: (-len(one.ids), one.ids))
        longest = len(ordered[0].ids) if ordered else 1
        size = sequences_at_once(self._device.type, longest)

        def work(model: LayeredModel, sequences: int) -> list[Likelihood]:
            return _score(model, ordered, requests, sequences * longest, self._over, self._progress)

        found: list[Likelihood] = self._within(size, work)
        self.found |= {text: likelihood for (text, *_ids), likelihood in zip(requests, found, strict=True)}
        return [(likelihood.sum, likelihood.greedy) for likelihood in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Return the log-likelihood in nats of whole texts, each in windows of the model's positions."""
        sums = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length, context_len=1,
            )  # fmt: skip
            parts = [(("", ""), *make_disjoint_window(window)) for window in windows]
            sums.append(sum(total for total, _ in self._loglikelihood_tokens(parts)))
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return the greedy text behind each prompt, up to a stop sequence or the number of tokens asked for.

        Raises:
            EngineError: `needs_resident` where the model's layers are streamed.
        """
        prompts = [(number, request.args[0], request.args[1]) for number, request in enumerate(requests)]
        texts = [""] * len(requests)
        done = 0
        for options in {repr(options): options for _, _, options in prompts}.values():
            alike = [(number, self.tok_encode(text)) for number, text, other in prompts if other == options]
            alike.sort(key=lambda prompt: -len(prompt[1]))
            new = min(int(options.get("max_gen_toks", _NEW_TOKENS)), self.max_length // 2)
            room = self.max_length - new
            longest = min(room, len(alike[0][1])) + new

            def work(model: LayeredModel, sequences: int) -> None:
                nonlocal done
                for first in range(0, len(alike), sequences):  # noqa: B023 - done with before the next round
                    batch = alike[first : first + sequences]  # noqa: B023
                    written = self._generate(_resident(model), [ids[-room:] for _, ids in batch], new, options["until"])  # noqa: B023
                    for (number, _), text in zip(batch, written, strict=True):
                        texts[number] = text
                    done += len(batch)
                    self._progress(min(done, len(requests)), len(requests))

            self._within(sequences_at_once(self._device.type, longest), work)
        return texts

    @torch.inference_mode()
    def _generate(self, decoder: Decoder, prompts: Sequence[list[int]], new: int, until: Sequence[str]) -> list[str]:
        """Continue a batch of prompts, padded on the left."""
        width = max(len(ids) for ids in prompts)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eot_token_id
        ids = torch.tensor([[pad] * (width - len(one)) + one for one in prompts], device=decoder.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=decoder.device)
        stops = [*until, self.tokenizer.decode(self.eot_token_id)]
        greedy = GenerationConfig(
            do_sample=False, max_new_tokens=new, eos_token_id=self.eot_token_id, pad_token_id=pad, use_cache=True
        )
        out = decoder.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            generation_config=greedy,
            stopping_criteria=stop_sequences_criteria(self.tokenizer, stops, width, len(prompts)),
        )
        texts = self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [postprocess_generated_text(text, stops, None) for text in texts]


def _resident(model: LayeredModel) -> Decoder:
    if not isinstance(model, Decoder):
        raise EngineError(
            "needs_resident",
            "tasks with written answers need the whole model in memory, and this run streams its layers; leave those "
            "tasks out",
        )
    return model


def _score(
    model: LayeredModel,
    inputs: Sequence[Input],
    requests: Sequence[Request],
    tokens_at_once: int,
    over: Over,
    progress: Callable[[int, int], None],
) -> list[Likelihood]:
    """Return what was found of each request, from inputs ordered by falling length."""
    found: list[Likelihood | None] = [None] * len(requests)
    done = 0
    if isinstance(model, Decoder):
        shared, inputs = questions(inputs)
        with torch.inference_mode(), model.head() as head:
            for batch in batches(
                shared, tokens_at_once, CACHE_BYTES[model.device.type] // model.cached_bytes_per_token
            ):
                for number, likelihood in _score_shared(model, head, batch, requests, over):
                    found[number] = likelihood
                    done += 1
                progress(done, len(requests))
    for group in _groups(inputs, tokens_at_once, model.execution == "streamed"):
        windows = _padded([one.ids for one in group])
        width = windows.shape[1]
        with ExitStack() as until_done:
            heads: list[Head] = []

            def visit(_: str, first: int, hidden: Tensor) -> None:
                nonlocal done
                if not heads:  # noqa: B023 - not before: a streamed model's layers have gone by then
                    heads.append(until_done.enter_context(model.head()))  # noqa: B023
                here = group[first : first + len(hidden)]  # noqa: B023
                for number, likelihood in _read_off(heads[0], hidden, here, requests, over):  # noqa: B023
                    found[number] = likelihood
                    done += 1
                progress(done, len(requests))

            model.last_states(windows, max(1, tokens_at_once // width), visit)
    return [likelihood for likelihood in found if likelihood is not None]


def _score_shared(
    model: Decoder, head: Head, batch: Sequence[Question], requests: Sequence[Request], over: Over
) -> Iterator[tuple[int, Likelihood]]:
    """Yield number and likelihood of each request of some questions, what their inputs begin with computed once.

    All begin at the length of the shortest, and what is left of each goes with its options, so that nothing is masked.
    """
    given = min(question.given for question in batch)
    beginnings = torch.tensor([question.inputs[0].ids[:given] for question in batch])
    inputs = [one for question in batch for one in question.inputs]
    owners = [place for place, question in enumerate(batch) for _ in question.inputs]
    tails = _padded([one.ids[given:] for one in inputs])
    return _read_off(head, model.last_states_behind(beginnings, owners, tails), inputs, requests, over, behind=given)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return ids [rows, longest], padded on the right: a causal model never looks at it."""
    padded = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = torch.tensor(row)
    return padded


def _groups(inputs: Sequence[Input], tokens_at_once: int, streamed: bool) -> Iterator[Sequence[Input]]:
    """Cut inputs of falling length into groups that are padded to their first one.

    A resident model takes a batch each. A streamed one reads all its layers for each group, so lengths from one power
    of two to the next go together.
    """
    first = 0
    while first < len(inputs):
        width = len(inputs[first].ids)
        if streamed:
            shortest = 1 << (width.bit_length() - 1)
            last = first + sum(len(one.ids) >= shortest for one in inputs[first:])
        else:
            last = first + max(1, tokens_at_once // width)
        yield inputs[first:last]
        first = last


def _read_off(
    head: Head, hidden: Tensor, inputs: Sequence[Input], requests: Sequence[Request], over: Over, *, behind: int = 0
) -> Iterator[tuple[int, Likelihood]]:
    """Yield number and likelihood of each request of a batch, from hidden states [batch, width, hidden].

    The states are of what is `behind` the first so many tokens.
    """
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    spans: list[tuple[int, int, int]] = []
    for row, one in enumerate(inputs):
        for number in one.requests:
            ids = requests[number][2]
            # Token t is predicted at place t - 1, and the last token is not in the input.
            predicted = ids if over == "option" else [*one.ids[1:], ids[-1]]
            places += range(len(one.ids) - len(predicted) - behind, len(one.ids) - behind)
            rows += [row] * len(predicted)
            targets += predicted
            spans.append((number, len(ids), len(predicted)))
    wanted = torch.tensor(targets, device=hidden.device)
    states = hidden[torch.tensor(rows, device=hidden.device), torch.tensor(places, device=hidden.device)]
    logs, greedy = _log_probabilities(head, states, wanted)
    start = 0
    for number, tokens, length in spans:
        end = start + length
        option = slice(end - tokens, end)
        prompt = None if over == "option" else -float(logs[start:end].mean())
        yield number, Likelihood(float(logs[option].sum()), bool(greedy[option].all()), tokens, prompt)
        start = end


def _log_probabilities(head: Head, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probability (float64, on CPU) and whether it is the likeliest, of each target [positions]."""
    logs, greedy = [], []
    vocabulary = head(states[:1]).shape[-1]
    step = max(1, _LOGIT_BYTES // (4 * vocabulary))
    for start in range(0, len(targets), step):
        logits = head(states[start : start + step]).float()
        aim = targets[start : start + step]
        logs.append(logits.log_softmax(-1).gather(-1, aim[:, None])[:, 0].double().cpu())
        greedy.append((logits.argmax(-1) == aim).cpu())
    return torch.cat(logs), torch.cat(greedy)
