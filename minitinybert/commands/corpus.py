"""Learning from raw text: masked-language-model training, and general distillation from a teacher
that was only pre-trained.

    files ─▶ build_shards ─▶ Segments ─┬▶ pretrain:         MaskedLM on 15 % of the positions           ─▶ an MLM directory
                                       └▶ distill_general:  embedding + hidden + attention losses       ─▶ a student directory

General distillation has no prediction loss (paper, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batching import by_length
from ..data.corpus import Corpus, build_shards
from ..data.masking import Masking
from ..data.segments import Segments
from ..data.tokenizer import Tokenizer
from ..distillation.distill import Intermediate, WithWords
from ..distillation.objectives import MaskedLM
from ..distillation.recipes import DEFAULT, Recipe
from ..engine.device import array_module, to_host
from ..engine.parallel import Workers
from ..engine.ranks import ALONE, Ranks
from ..errors import InputError
from ..files import check_apart
from ..losses import cross_entropy
from ..machine import Machine
from ..model.bert import Bert
from ..model.config import Config
from ..progress import log
from ..training.left import corpus_of
from ..training.loop import Options, digest, nothing_to_do, read_metrics, train
from ..training.plan import GENERAL_LENGTH, Given, general_options
from ..training.shares import Learner
from ..training.teacher import Running
from ..weights import read
from . import card
from .info import cost_line
from .shape import is_shape
from .students import is_checkpoint, maps_at_start, new_student, random_model

_DEV_FRACTION, _DEV_MOST = 0.05, 2000  # sentences at the corpus's end that are kept from training
_ROWS = 2048  # tokens a batch in evaluation
_BEST = "log_likelihood"  # of held-out words: by it the best model is kept


@dataclass(frozen=True)
class Text:
    """The corpus, and how examples are made of it."""

    files: Sequence[str | Path]
    max_length: int = GENERAL_LENGTH
    pairs: bool = False  # A/B pairs with two segments, as BERT's; False: single segments
    dynamic: bool = True  # segments, pairs and masks chosen anew at every epoch
    one_sentence_a_line: bool = True  # False: plain text
    shards: Path | None = None  # where the tokenised corpus is kept; None: in the run's directory
    processes: int = 1  # that tokenise

    def corpus(self, tokenizer: Tokenizer, out: Path, ranks: Ranks = ALONE) -> Corpus:
        """The tokenised corpus: made, gone on with, or found finished."""
        return build_shards(
            self.files, tokenizer.tokenizer, self.shards or corpus_of(out), self.processes, self.one_sentence_a_line, ranks=ranks
        )

    def check_fits(self, config: Config) -> None:
        """InputError where the examples are not what a model of `config` has rows for."""
        if self.max_length > config.max_position_embeddings:
            raise InputError(f"--max-length {self.max_length}: the model has {config.max_position_embeddings} positions")
        if self.pairs and config.type_vocab_size < 2:
            raise InputError("pairs need a model with two token types, and this one has one; use single segments")

    def settings(self, masking: Masking | None) -> dict[str, Any]:
        """What is known of the examples before the corpus is tokenised."""
        sizes = [path.stat().st_size if (path := Path(file)).is_file() else None for file in self.files]
        chosen = {"max_length": self.max_length, "pairs": self.pairs, "dynamic": self.dynamic}
        return {**chosen, "masked": masking and masking.rate, "corpus bytes": sizes}

    def segments(self, corpus: Corpus, tokenizer: Tokenizer, seed: int, masking: Masking | None, **settings: Any) -> Segments:
        ids = tokenizer.cls_id, tokenizer.sep_id
        return Segments(corpus, *ids, self.max_length, seed, self.pairs, self.dynamic, masking, **settings)


# ----------------------------------------------------------------------------------------------------- masked language model


def pretrain(
    model: str,
    text: Text,
    out: Path,
    options: Options,
    machine: Machine,
    tokenizer: Path | Mapping[str, Path] | None = None,
    rate: float = 0.15,
    resume: bool = False,
    keep_state: bool = False,
) -> dict[str, dict[str, float]]:
    """Train a masked language model; `out` holds the one best on held-out text.

    model: a directory (one without such a head gets a fresh one), or a shape for random weights,
    and `tokenizer` the directory of its tokenizer.json or vocab.txt, or these by name. Returns {"dev": mlm_metrics}
    of the corpus's last sentences, which are not trained on. keep_state: what only `resume` needs stays,
    the tokenised corpus among it (training/left.py).
    """
    out = Path(out)
    check_apart(out, model)
    if not 0 < rate < 1:
        raise InputError(f"--mask-rate {rate}: a share of the positions between 0 and 1 is needed")
    student, fresh = _mlm_model(model, tokenizer, options.seed)
    words = Tokenizer.load(student.tokenizer_files)
    words.check_fits(student.config.vocab_size)
    text.check_fits(student.config)
    arguments = [("--model", card.named(model)), *_of_text(text), ("--mask-rate", rate), *card.of_options(options)]
    made = card.Made("pretrain", [*arguments, *card.of_all_steps(options)], text.max_length, model)
    masking = mlm_masking(words, rate)
    settings = text.settings(masking)
    if resume and nothing_to_do(out, options, settings):
        results = {"dev": max((row["dev"] for row in read_metrics(out / "metrics.jsonl") if "dev" in row), key=lambda dev: dev[_BEST])}
        card.leave(out, student.config, made, results, machine, keep_state)
        return results
    corpus = text.corpus(words, out, machine.workers.ranks)
    _check_known(words, corpus)
    cut = len(corpus) - min(_DEV_MOST, round(_DEV_FRACTION * len(corpus)))
    if cut == len(corpus):
        raise InputError(f"the corpus has {len(corpus)} sentences; at least {round(1 / _DEV_FRACTION)} are needed")
    if fresh:
        student.parameters["cls.predictions.bias"][...] = log_frequencies(corpus.counts(cut, student.config.vocab_size))
    training = text.segments(corpus, words, options.seed, masking, last=cut)
    held_out = replace(text, pairs=False, dynamic=False)
    only_masks = replace(masking, mask_fraction=1.0, random_fraction=0.0)
    dev = held_out.segments(corpus, words, options.seed, only_masks, first=cut, short=0.0)
    learner = Learner(student.to(machine.xp), MaskedLM(), machine.workers, seed=options.seed)
    judge = lambda m: mlm_metrics(m, dev, machine.workers)
    train(learner, training, options, out, judge, _BEST, resume, "pretrain", settings)
    results = {"dev": mlm_metrics(Bert.load(out).to(machine.xp), dev, machine.workers)}
    card.leave(out, student.config, made, results, machine, keep_state)
    return results


def _of_text(text: Text) -> list[tuple[str, Any]]:
    """The command line's options of a corpus."""
    switches = [("--pairs", text.pairs), ("--static", not text.dynamic), ("--plain-text", not text.one_sentence_a_line)]
    files = " ".join(card.named(file) for file in text.files)
    return [("--corpus", files), ("--max-length", text.max_length), *((name, None) for name, given in switches if given)]


def _check_known(words: Tokenizer, corpus: Corpus) -> None:
    """InputError where the vocabulary knows no word of the corpus, a warning where it knows few."""
    unknown = int(corpus.counts(len(corpus), words.vocab_size)[words.unk_id])
    names = [source["name"] for source in corpus.manifest["plan"]["sources"]]
    words.check_share(unknown, corpus.num_tokens, ", ".join(names[:3]) + ", …" * (len(names) > 3))


def log_frequencies(counts: np.ndarray) -> np.ndarray:
    """ln P of each word of a vocabulary with one more of each counted, (V,) float64: what a head
    that does not know the context should say.

    A fresh head's bias starts there. From zero, Adam, which moves no bias by more than the learning
    rate a step, would get there late.
    """
    return np.log((counts + 1) / (counts.sum() + len(counts)))


def mlm_masking(tokenizer: Tokenizer, rate: float = 0.15) -> Masking:
    special = tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id
    return Masking(tokenizer.mask_id, tokenizer.vocab_size, special, rate)


def mlm_metrics(model: Bert, examples: Segments, workers: Workers) -> dict[str, float]:
    """Means over the masked positions: the log-likelihood of the word (in nats), and how often it
    is among the model's 1 or 10 most probable ("top1", "top10"). No dropout. InputError where the
    logits are not finite: no logit is larger than NaN, and each word would be the first."""
    xp = array_module(model.parameters.flat)

    def sums(indices: np.ndarray) -> np.ndarray:
        batch = model.place(examples.batch(indices))
        assert batch.masked is not None
        trace, _ = model.forward_batch(batch, hidden=(), scores=(), positions=batch.masked.rows, keep_cache=False)
        entropy, _ = cross_entropy.forward(trace.logits, batch.masked.labels, 1)
        own = xp.take_along_axis(trace.logits, batch.masked.labels[:, None], axis=-1)  # type: ignore[arg-type]
        rank = to_host((trace.logits > own).sum(axis=-1))
        return np.array([len(rank), -float(entropy), (rank < 1).sum(), (rank < 10).sum()])

    n, *totals = np.sum(workers.map_over_ranks(sums, by_length(examples.lengths(0), _ROWS)), axis=0)
    if not np.isfinite(totals).all():
        raise InputError("the model's answers to masked words are not finite (NaN, infinity); train it with a smaller learning rate")
    return {name: float(total / n) for name, total in zip(("log_likelihood", "top1", "top10"), totals, strict=True)}


def _mlm_model(model: str, tokenizer: Path | Mapping[str, Path] | None, seed: int) -> tuple[Bert, bool]:
    """A checkpoint, with a fresh head where it has none for words, or random weights of a shape and
    a tokenizer; and if it is fresh."""
    if is_shape(model):
        return random_model(model, tokenizer, seed, head="mlm", pooler=False), True
    checkpoint = read(model)
    if tokenizer is not None:
        raise InputError(f"--model {model}: has a vocabulary of its own; leave --tokenizer and --train-vocabulary out")
    if Config.from_hf(checkpoint.config, f"{model}/config.json").head == "mlm":
        return Bert.from_checkpoint(checkpoint, model), False
    loaded = Bert.from_checkpoint(checkpoint, model, head="none")  # a classifier is not looked at
    fresh = Bert.new(replace(loaded.config, head="mlm", pooler=False), seed)
    for name in fresh.parameters:
        if not name.startswith("cls."):
            fresh.parameters[name][...] = loaded.parameters[name]
    return Bert(fresh.config, fresh.parameters, loaded.tokenizer_files), True


# ------------------------------------------------------------------------------------------------------ general distillation


def distill_general(
    teacher: str,
    student: str,
    text: Text,
    out: Path,
    options: Given,
    machine: Machine,
    recipe: Recipe = DEFAULT,
    resume: bool = False,
    weights: Mapping[str, float] | None = None,
    keep_state: bool = False,
) -> dict[str, dict[str, float]]:
    """General distillation (paper section 3.2): embedding, hidden and attention losses on raw text,
    none of the prediction layer, unless the recipe has one (general_prediction).

    teacher: a BERT that was pre-trained, with any head, or for a prediction loss with its masked
    language model's; student: a directory, or a shape for random
    weights, with the teacher's tokenizer; options: what they leave out is the recipe's
    (training/plan.py); weights: λ of the terms (for ablations). The encoder is saved to `out`, with
    its head where it has one. keep_state as of `pretrain`. Returns {"train": the last mean losses}.
    """
    out = Path(out)
    check_apart(out, teacher, student)
    decided = general_options(recipe, options)
    words_too = recipe.general_prediction > 0
    master = Bert.load(teacher, head=None if words_too else "none")
    if words_too and master.config.head != "mlm":
        raise InputError(f"{teacher}: has no masked language model's head, whose words general_prediction compares; choose another teacher")
    pupil = _general_student(student, master, decided.seed)
    words = Tokenizer.load(pupil.tokenizer_files)
    words.check_fits(pupil.config.vocab_size)
    words.check_same_vocabulary(Tokenizer.load(master.tokenizer_files))
    text = replace(text, pairs=text.pairs or recipe.corpus_pairs)
    text.check_fits(pupil.config)
    text.check_fits(master.config)
    arguments = [("--teacher", card.named(teacher)), ("--student", card.named(student)), *_of_text(text), *card.of_recipe(recipe)]
    arguments += [*card.of_options(decided), *card.of_all_steps(decided)]
    made = card.Made("distill general", arguments, text.max_length, teacher, None, card.Teacher(card.named(teacher), master.config, {}))
    objective = (WithWords if words_too else Intermediate)(pupil.config, master.config, recipe, weights)
    pad_id = words.pad_id if recipe.padding == "count" else None
    masking = _corruption(recipe, words)
    frozen = machine.frozen(master)
    conditions = {**machine.conditions(recipe), "teacher's weights": digest(to_host(frozen.parameters.flat)), **text.settings(masking)}
    if resume and nothing_to_do(out, decided, conditions):
        results = {"train": _last_losses(out)}
        card.leave(out, pupil.config, made, results, machine, keep_state)
        return results
    corpus = text.corpus(words, out, machine.workers.ranks)
    _check_known(words, corpus)
    examples = text.segments(corpus, words, decided.seed, masking, pad_id=pad_id)
    known = maps_at_start(student, pupil, master, recipe, examples, decided.seed)
    answering = Running(frozen, recipe.teacher_dropout)  # it has a copy of its own, for reading
    master_config = master.config
    del master, frozen
    learner = Learner(pupil.to(machine.xp), objective, machine.workers, answering, decided.seed, known)
    about = {"teacher": teacher, "corpus": [str(file) for file in text.files], "max_length": text.max_length}
    train(learner, examples, decided, out, resume=resume, description="distill general", conditions=conditions, about=about)
    log(cost_line(pupil.config, text.max_length, master_config))
    results = {"train": _last_losses(out)}
    card.leave(out, pupil.config, made, results, machine, keep_state)
    return results


def _general_student(student: str, teacher: Bert, seed: int) -> Bert:
    """With a head for words where the teacher has one, which it has where they are compared."""
    if is_checkpoint(student):
        return _mlm_model(student, None, seed)[0] if teacher.config.head == "mlm" else Bert.load(student, head="none")
    return new_student(student, teacher, seed, pooler=False)


def _corruption(recipe: Recipe, tokenizer: Tokenizer) -> Masking | None:
    rate = {"none": None, "one": 0.0, "mlm": 0.15}[recipe.corpus_masking]
    return None if rate is None else mlm_masking(tokenizer, rate)


def _last_losses(out: Path) -> dict[str, float]:
    rows = read_metrics(out / "metrics.jsonl")
    return next((row["losses"] for row in reversed(rows) if "losses" in row), {})
