"""Sequence classifiers as ONNX files, run on one core of this machine. Nothing is ever downloaded.

A model is a folder with ``model.onnx`` (or ``model_quantized.onnx``) and ``tokenizer.json``. What its
outputs mean is read from ``config.json`` (``id2label``) or, for those of StackOne Defender, from
``classifier_config.json``. Needs the extra ``guards``.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from unbroken.server.guards.injection.base import DetectorFailed

__all__ = ["OnnxClassifier", "has_runtime", "packaged_model"]

_MOST_TOKENS: Final = 128
"""Tokens of a window that are read: twice what one of English has."""

_SLOWER: Final = ["SkipLayerNormFusion"]
"""What the runtime would do to a graph, and costs a twentieth of its time on a core: what it puts in place
of an addition and a normalisation is slower than both."""

_ATTACK: Final = re.compile(r"inject|jailbreak|malicious|attack|unsafe|label_1\b", re.IGNORECASE)
_PACKAGE: Final = "stackone_defender"
_PACKAGED: Final = Path("models", "minilm-multihead-v5")


def has_runtime() -> bool:
    """Return whether what runs models is installed."""
    return all(importlib.util.find_spec(name) for name in ("numpy", "onnxruntime", "tokenizers"))


def packaged_model() -> Path | None:
    """Return the folder of the model that the extra ``guards`` brings; None: it isn't installed.

    Only its files are used: none of that package's code is run.
    """
    found = importlib.util.find_spec(_PACKAGE)
    places = [] if found is None else list(found.submodule_search_locations or ())
    folders = [Path(place) / _PACKAGED for place in places]
    return next((folder for folder in folders if folder.is_dir()), None)


class OnnxClassifier:
    """A :class:`~unbroken.server.guards.injection.base.Reader`, which takes half a second to load.

    Args:
        folder: Where it is.
        name: What it is called in reasons and logs.
        tokens: How many of a window it reads: time grows with them.

    Raises:
        DetectorFailed: There is no such model, or it is of another kind.

    """

    def __init__(self, folder: Path, *, name: str = "model", tokens: int = _MOST_TOKENS) -> None:
        self._name = name
        model = next(
            (folder / each for each in ("model.onnx", "model_quantized.onnx") if (folder / each).is_file()),
            None,
        )
        if model is None or not (folder / "tokenizer.json").is_file():
            raise DetectorFailed(f"{folder} has no model.onnx and tokenizer.json.")
        if not has_runtime():
            raise DetectorFailed("Models need the extra guards: pip install 'unbroken[guards]'.")
        import numpy
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
            )
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._meaning = _Meaning(folder)
        except Exception as exc:  # noqa: BLE001 - the library's own, and none of them is documented
            raise DetectorFailed(f"{folder} can't be loaded ({type(exc).__name__}).") from None
        self._numpy = numpy
        self._tokens = tokens
        self._tokenizer.enable_truncation(tokens)
        self._tokenizer.no_padding()
        self._inputs = {each.name for each in self._session.get_inputs()}

    @property
    def name(self) -> str:
        """See :attr:`Classifier.name`."""
        return self._name

    def scores(self, texts: Sequence[str]) -> list[float]:
        """See :meth:`Classifier.scores`. One by one: what stands beside a text changes nothing."""
        return [self._score(text) for text in texts]

    def fits(self, texts: Sequence[str]) -> bool:
        """See :meth:`Reader.fits`: they have no more tokens together than are read of one."""
        return sum(len(self._tokenizer.encode(text).ids) for text in texts) <= self._tokens

    def _score(self, text: str) -> float:
        ids = self._tokenizer.encode(text).ids
        if len(set(ids)) < _LEAST_DISTINCT:
            return 0.0  # a rule of dashes, a word: models say anything of what they never saw
        row = self._numpy.array([ids], dtype=self._numpy.int64)
        given = {"input_ids": row, "attention_mask": self._numpy.ones_like(row)}
        if "token_type_ids" in self._inputs:
            given["token_type_ids"] = self._numpy.zeros_like(row)
        try:
            (logits, *_) = self._session.run(None, given)
            return self._meaning.score([float(each) for each in self._numpy.ravel(logits)])
        except Exception as exc:  # noqa: BLE001 - as above
            raise DetectorFailed(f"The model can't be run ({type(exc).__name__}).") from None


_LEAST_DISTINCT: Final = 5
"""Different tokens, with the two that every text has."""


class _Meaning:
    """What a model's outputs say."""

    def __init__(self, folder: Path) -> None:
        own, usual = _read(folder / "classifier_config.json"), _read(folder / "config.json")
        calibration = own.get("calibration") or {}
        self._temperature = float(calibration.get("temperatureT", 1.0))
        self._is_separate = bool(own.get("multi_head"))
        labels = {int(number): str(label) for number, label in (usual.get("id2label") or {}).items()}
        self._attacks = [number for number, label in labels.items() if _ATTACK.search(label)]

    def score(self, logits: list[float]) -> float:
        """Return the probability of an attack: that of the one output, the first head, or the labels."""
        if self._is_separate or len(logits) == 1:
            return 1 / (1 + math.exp(-max(-60.0, min(60.0, logits[0] / self._temperature))))
        attacks = self._attacks or [len(logits) - 1]
        top = max(logits)
        shares = [math.exp((each - top) / self._temperature) for each in logits]
        return sum(shares[number] for number in attacks) / sum(shares)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text("utf-8"))
    return content if isinstance(content, dict) else {}
