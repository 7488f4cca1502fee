"""Token by token: the methods that explain how generation works, and states of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fastq.compat.llama_cpp import _completion
from fastq.compat.llama_cpp._processors import Hook, StoppingCriteriaList, functions

if TYPE_CHECKING:
    from fastq import Model
    from fastq.compat.llama_cpp.llama import Llama
    from fastq.compat.llama_cpp.llama_grammar import LlamaGrammar


class LlamaState:
    """What :meth:`Llama.save_state` gives. It can be pickled.

    Attributes:
        input_ids: The tokens, at the beginning of an array as long as the context.
        scores: Logits after the tokens, where they had been asked for.
        n_tokens: Number of tokens.
        llama_state: The tokens as bytes.
        llama_state_size: Their number.
        seed: The seed.
    """

    def __init__(
        self,
        input_ids: NDArray[np.intc],
        scores: NDArray[np.single],
        n_tokens: int,
        llama_state: bytes,
        llama_state_size: int,
        seed: int,
    ) -> None:
        self.input_ids = input_ids
        self.scores = scores
        self.n_tokens = n_tokens
        self.llama_state = llama_state
        self.llama_state_size = llama_state_size
        self.seed = seed


class TokenByToken:
    """The part of :class:`Llama` that holds tokens of its own.

    A token is chosen by a call for one token after all of them. What was computed for them is found again by the model,
    and draws depend on the seed and the place of the token, so that the tokens are those of one long call.
    """

    fastq_model: Model
    _arguments: dict[str, Any]
    _n_ctx: int
    _n_vocab: int
    _seed: int
    _tokens: list[int]
    _scores_of: tuple[list[int], NDArray[np.single]] | None

    def token_eos(self) -> int:
        """The token that ends a text, or -1."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the tokens."""
        self._tokens = []

    def eval(self, tokens: Sequence[int]) -> None:
        """Append tokens to those that the next one is chosen after. They are computed when that is asked for.

        Raises:
            ValueError: There are more than the context holds.
        """
        total = len(self._tokens) + len(tokens)
        if total > self._n_ctx:
            raise ValueError(f"Requested tokens ({total}) exceed context window of {self._n_ctx}")
        self._tokens = self._tokens + [int(token) for token in tokens]

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_eta: float = 0.1,
        mirostat_tau: float = 5.0,
        penalize_nl: bool = True,
        logits_processor: Any = None,
        grammar: LlamaGrammar | None = None,
        idx: int | None = None,
    ) -> int:
        """Choose the token that follows. See :meth:`create_completion` for the arguments.

        Args:
            idx: Choose the one that follows the token at this place; by default, the last.

        Raises:
            ValueError: There are no tokens.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "idx")}
        return self._choose(self._tokens if idx is None else self._tokens[: idx + 1], arguments)

    def _choose(self, tokens: list[int], arguments: dict[str, Any]) -> int:
        if not tokens:
            raise ValueError("there are no tokens to choose one after: call eval first")
        options = _completion.sampling(cast("Llama", self), {**arguments, "temperature": arguments["temp"]})
        options.pop("speculate", None)
        if processors := functions(arguments["logits_processor"], "logits_processor"):
            options["logits_processors"] = [Hook(len(tokens), processors, ())]
        # Draws depend on the seed and the place of the token, so that the same seed serves a whole text.
        done = self.fastq_model.generate(tokens, max_tokens=1, seed=self._seed, **options)
        return done.tokens[0] if done.tokens else self.token_eos()

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        penalize_nl: bool = True,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        grammar: LlamaGrammar | None = None,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Token ids that follow, end tokens included, for as long as they are asked for.

        Args:
            tokens: The prompt.
            reset: Forget the tokens before. What is common with them is not computed again.

        Raises:
            ValueError: The context is full.
            NotImplementedError: With a grammar or mirostat, which need to see the whole text:
                :meth:`create_completion` has them.
        """
        if grammar is not None or mirostat_mode:
            raise NotImplementedError("generate: use create_completion for answers with a grammar or mirostat")
        arguments = {name: value for name, value in locals().items() if name not in ("self", "tokens", "reset")}
        criteria = functions(stopping_criteria, "stopping_criteria")
        if reset:
            self.reset()
        more: Sequence[int] = tokens
        while True:
            self.eval(more)
            token = self._choose(self._tokens, arguments)
            seen = np.array(self._tokens, dtype=np.intc)
            if criteria and StoppingCriteriaList(criteria)(seen, self._scores[-1]):
                return
            given = yield token
            more = [token, *(given or ())]

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the next one is chosen after."""
        return len(self._tokens)

    @n_tokens.setter
    def n_tokens(self, number: int) -> None:
        self._tokens = self._tokens[:number]

    @property
    def input_ids(self) -> NDArray[np.intc]:
        """The tokens, at the beginning of an array as long as the context."""
        ids = np.zeros(self._n_ctx, dtype=np.intc)
        ids[: len(self._tokens)] = self._tokens
        return ids

    @property
    def _input_ids(self) -> NDArray[np.intc]:
        return np.array(self._tokens, dtype=np.intc)

    @property
    def scores(self) -> NDArray[np.single]:
        """Logits after the tokens, ``(n_tokens, n_vocab)``, computed when asked for.

        Without ``logits_all`` only the last row is computed, and the others are 0.
        """
        if self._scores_of is None or self._scores_of[0] != self._tokens:
            rows = np.zeros((len(self._tokens), self._n_vocab), dtype=np.single)
            if self._tokens and self._arguments["logits_all"]:
                rows = self.fastq_model.logits(self._tokens, all=True)
            elif self._tokens:
                rows[-1] = self.fastq_model.logits(self._tokens)
            self._scores_of = (list(self._tokens), rows)
        return self._scores_of[1]

    @property
    def _scores(self) -> NDArray[np.single]:
        return self.scores

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens."""
        return deque(self._tokens, maxlen=self._n_ctx)

    @property
    def eval_logits(self) -> deque[list[float]]:
        """Logits after the tokens; without ``logits_all`` those after the last."""
        rows = self.scores if self._arguments["logits_all"] else self.scores[-1:]
        return deque(rows.tolist(), maxlen=self._n_ctx)

    @staticmethod
    def logits_to_logprobs(logits: Any, axis: int = -1) -> NDArray[np.single]:
        """Natural logarithms of the softmax."""
        values = np.asarray(logits, dtype=np.single)
        largest = np.max(values, axis=axis, keepdims=True)
        values = values - np.where(np.isfinite(largest), largest, np.single(0))
        with np.errstate(divide="ignore"):
            return cast("NDArray[np.single]", values - np.log(np.sum(np.exp(values), axis=axis, keepdims=True)))

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """How many tokens two lists begin alike with."""
        same = 0
        for one, other in zip(a, b, strict=False):
            if one != other:
                break
            same += 1
        return same

    def _remember(self, tokens: list[int]) -> None:
        """What a completion leaves behind for :meth:`save_state` and :attr:`scores`."""
        self._tokens = tokens[: self._n_ctx]

    def save_state(self) -> LlamaState:
        """The tokens so far. What was computed for them stays with the model, which finds it by the tokens."""
        tokens = np.array(self._tokens, dtype=np.intc)
        scores = self._scores_of[1] if self._scores_of is not None and self._scores_of[0] == self._tokens else None
        rows = np.empty((0, self._n_vocab), dtype=np.single) if scores is None else scores.copy()
        data = tokens.tobytes()
        return LlamaState(self.input_ids, rows, len(tokens), data, len(data), self._seed)

    def load_state(self, state: LlamaState) -> None:
        """Go on with the tokens of a state."""
        tokens = [int(token) for token in state.input_ids[: state.n_tokens]]
        if len(tokens) > self._n_ctx:
            raise RuntimeError(f"Failed to set llama state data: {len(tokens)} tokens, the context has {self._n_ctx}")
        self._tokens = tokens
        self._seed = state.seed
        self._scores_of = (list(tokens), state.scores.copy()) if len(state.scores) == len(tokens) else None
