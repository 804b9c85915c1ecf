"""The commands' arguments. What each command does with them is in cli.py."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ..distillation.recipes import RECIPES
from ..version import __version__
from .ablation.variants import VARIANTS


def build_parser(kind: type[argparse.ArgumentParser] | None = None) -> argparse.ArgumentParser:
    """kind: the parser's class, and its commands'; by default one that tells a user's error and exits."""
    parser = (kind or _Parser)(prog="minitinybert", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(commands)
    _convert(commands)
    _finetune(commands)
    _pretrain(commands)
    _augment(commands)
    _distill(commands)
    _ablate(commands)
    _evaluate(commands)
    _predict(commands)
    _info(commands)
    _report(commands)
    _export(commands)
    _clean(commands)
    _audit(commands)
    parser.add_argument("--version", action="version", version=f"minitinybert {__version__}")
    words = "bash, zsh or tcsh: print a script that completes commands, options and files"
    parser.add_argument("--print-completion", action=_Completion, metavar="SHELL", help=words)
    _finish(parser)
    return parser


_DESCRIPTION = "TinyBERT from scratch on NumPy and CuPy: fine-tune a teacher, distil a student, prove every gradient."


class _Parser(argparse.ArgumentParser):
    """Says what is wrong on one line, as all of the package does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one, and examples, which are indented, as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False or action.default == []
        return action.help if none else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(line if line.startswith("    ") else fill(line, width, indent) for line in text.split("\n"))


class _Completion(argparse.Action):
    """shtab's script, which it makes of the parser. It is imported here, as no other call needs it."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, shell: Any, option: str | None = None) -> NoReturn:
        import shtab

        if shell not in shtab.SUPPORTED_SHELLS:
            parser.error(f"argument --print-completion: no completion for {shell}; choose one of {', '.join(shtab.SUPPORTED_SHELLS)}")
        for command in _all(parser):
            for action in command._actions:
                named = str(action.metavar)
                if "FILE" in named or "DIR" in named or named in ("SRC", "DST", "MODEL", "RUN"):
                    action.complete = shtab.FILE if "FILE" in named else shtab.DIRECTORY  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell))
        parser.exit(0)


_OF_SQUAD = "--task squad, all in word pieces"
_GROUPS = {  # which options stand together in a help text; those that stand nowhere are the command's own
    "the task and its data": "task data split_seed drop_unlabelled text_columns label_column labels regression max_length",
    "raw text": "corpus plain_text pairs static shards processes",
    "training": "recipe set general_epochs general_lr intermediate_epochs intermediate_lr epochs lr optimizer batch_size warmup "
    "log_every save_every resume cache_gb teacher_cache",
    "the machine, and what is printed": "device tf32 threads seed json",
}
_SAID = {  # of options that mean the same wherever they stand
    "model": "a model's directory, or a Hugging Face id",
    "out": "a new directory, which gets what the command makes",
    "epochs": "passes over the examples",
    "lr": "the highest learning rate",
    "optimizer": "whose Adam",
    "destination": "a new directory",
    "text": "a text, or a pair: 'first ||| second'",
}
_SST_2 = "--task sst-2 --data glue/SST-2"
_EXAMPLES = {
    "demo": "minitinybert demo --out demo",
    "convert": "minitinybert convert uncased_L-12_H-768_A-12/bert_model.ckpt bert",
    "finetune": f"minitinybert finetune --model bert-base-uncased {_SST_2} --out teacher",
    "pretrain": "minitinybert pretrain --model 6L-384D-12H-1536F --train-vocabulary 30000 --corpus corpus.txt --out mlm",
    "augment": f"minitinybert augment --mlm bert-base-uncased --vectors glove.6B.300d.txt {_SST_2} --out augmented",
    "general": "minitinybert distill general --teacher bert-base-uncased --student 4L-312D-12H-1200F --corpus corpus.txt --out general",
    "task": "minitinybert distill task --teacher teacher --student general --task sst-2 --data augmented --out student",
    "ablate": f"minitinybert ablate --teacher teacher --student 4L-312D-12H-1200F {_SST_2} --augmented augmented --out ablation",
    "evaluate": f"minitinybert evaluate --model student {_SST_2}",
    "predict": "minitinybert predict --model student 'a gripping, funny and humane film'",
    "info": "minitinybert info student --teacher teacher --measure",
    "report": "minitinybert report student --out report.html",
    "clean": "minitinybert clean student",
    "export": f"minitinybert export --model student --int8 {_SST_2} --out served",
    "audit": "minitinybert audit --seed 1",
}


def _all(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands, and of theirs."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _all(command)


def _finish(parser: argparse.ArgumentParser) -> None:
    """Sorts each command's options into groups, says what is the same for all, and adds an example."""
    for command in _all(parser):
        for action in command._actions:
            action.help = action.help or _SAID.get(action.dest)
        own = command._optionals._group_actions
        for title, names in _GROUPS.items():
            if together := [action for action in own if action.dest in names.split()]:
                command.add_argument_group(title)._group_actions.extend(together)
                own[:] = [action for action in own if action not in together]
        places = {title: place for place, title in enumerate(_GROUPS)}
        command._action_groups.sort(key=lambda group: places.get(group.title or "", 0.5 if group.title == _OF_SQUAD else -1))
        if example := _EXAMPLES.get(command.prog.split()[-1]):
            command.epilog = "example:\n" + _on_lines(example)


def _on_lines(example: str) -> str:
    """A command on lines of less than 80 columns, broken before options as a shell takes it."""
    lines = ["   "]
    for part in re.split(r" (?=--)", example):
        if len(lines[-1]) + len(part) > 74:
            lines[-1] += " \\"
            lines.append("       ")
        lines[-1] += f" {part}"
    return "\n".join(lines)


def _command(commands: Any, name: str, help: str, threads: bool = True) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help, formatter_class=_Help)
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda|cuda:N", help="where the arrays live")
    parser.add_argument("--tf32", action="store_true", help="on a GPU: float32 matrices are multiplied on tensor cores, in TF32")
    if threads:
        parser.add_argument("--threads", type=_positive, default=None, help="threads on the CPU (without it: one a core)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    return parser


_GLUE = "cola sst-2 mrpc sts-b qqp mnli qnli rte wnli ax"


def _task_options(parser: argparse.ArgumentParser) -> None:
    known = "(without it: the one that the model or teacher remembers, or custom with --text-columns)"
    parser.add_argument("--task", metavar="NAME", help=f"{_GLUE}, tokens, squad, or custom {known}")
    one = "or one .csv, .tsv, .jsonl or .parquet, which is split"
    parser.add_argument("--data", required=True, type=Path, metavar="DIR|FILE", help=f"the task's train, dev (and test) files; {one}")
    parser.add_argument("--split-seed", type=int, metavar="N", help="of one file's split, whatever --seed is (without it: 0)")
    parser.add_argument("--drop-unlabelled", action="store_true", help="leave rows out that have no gold label: blank, -, NaN")
    _custom_options(parser)


def _custom_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text-columns", metavar="A[,B]", help="--task custom: the text's column, or a pair's two; tokens: the words'")
    parser.add_argument("--label-column", metavar="NAME", help="--task custom, tokens: the label's column; models remember both")
    parser.add_argument("--labels", metavar="A,B,…", help="--task custom: the labels in order (without it: those of the training file)")
    parser.add_argument("--regression", action="store_true", help="--task custom: the labels are numbers, whole ones too")
    squad = parser.add_argument_group(_OF_SQUAD)
    squad.add_argument("--doc-stride", type=_positive, metavar="N", help="from one window of a long document to the next (without it: 128)")
    squad.add_argument("--max-query-length", type=_positive, metavar="N", help="that a question is cut to (without it: 64)")
    squad.add_argument("--max-answer-length", type=_positive, metavar="N", help="of the longest answer given (without it: 30)")
    squad.add_argument("--null-threshold", type=float, metavar="X", help="no answer where it is better by more (without it: the model's)")


_OF_RECIPE = " (without it: the recipe's)"
_OF_TASK = " (without it: 128, of squad 384)"


def _length_option(parser: argparse.ArgumentParser, default: int | None = 128, without: str = _OF_RECIPE) -> None:
    more = "" if default else without
    parser.add_argument("--max-length", type=_positive, default=default, metavar="L", help=f"word pieces a text (or pair) is cut to{more}")


def _training_options(parser: argparse.ArgumentParser, batch_size: int | None = 32) -> None:
    more = "" if batch_size else _OF_RECIPE
    rises = f"share of the steps over which the learning rate rises, or above 1 their number{more}"
    parser.add_argument("--batch-size", type=_positive, default=batch_size, metavar="B", help=f"examples a step{more}")
    parser.add_argument("--warmup", type=float, default=0.1 if batch_size else None, metavar="W", help=rises)
    parser.add_argument("--log-every", type=_positive, default=50, metavar="STEPS", help="a line in metrics.jsonl")
    parser.add_argument("--save-every", type=_positive, default=500, metavar="STEPS", help="a checkpoint, also at each epoch")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, where there is one")
    parser.add_argument("--keep-state", action="store_true", help="leave checkpoint/ and the models on the way when the run has ended")


def _teacher_dtype_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher-dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the frozen teacher, on a GPU"
    )


def _finetune(commands: Any) -> None:
    parser = _command(commands, "finetune", "fine-tune a BERT on a task: the teacher")
    parser.add_argument("--model", required=True, metavar="DIR|ID|SHAPE", help="a model directory, an id, or a shape for random weights")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="of a tokenizer.json or vocab.txt, where --model is a shape")
    _task_options(parser)
    _length_option(parser, None, _OF_TASK)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    _recipe_option(parser)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--optimizer", choices=("adamw", "bert", "bert-adam"), help="whose Adam (without it: the recipe's)")
    _training_options(parser)


def _pretrain(commands: Any) -> None:
    parser = _command(commands, "pretrain", "masked-language-model training on raw text")
    parser.add_argument("--model", required=True, metavar="DIR|ID|SHAPE", help="weights to go on from, or a shape for random ones")
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--tokenizer", type=Path, metavar="DIR", help="of a tokenizer.json or vocab.txt, where --model is a shape")
    words.add_argument("--train-vocabulary", type=_positive, metavar="N", help="or a vocabulary of N word pieces from the corpus")
    parser.add_argument("--cased", action="store_true", help="--train-vocabulary keeps capitals, and accents")
    parser.add_argument("--keep-accents", action="store_true", help="--train-vocabulary lower-cases, but keeps accents and other marks")
    _corpus_options(parser)
    _length_option(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--mask-rate", type=float, default=0.15, help="share of the positions that are predicted")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--optimizer", choices=("adamw", "bert-adam"), default="adamw")
    _training_options(parser)


def _corpus_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--corpus", required=required, nargs="+", metavar="FILE", help="a sentence a line, a blank line between documents")
    parser.add_argument("--plain-text", action="store_true", help="the corpus has paragraphs, not a sentence a line")
    parser.add_argument("--pairs", action="store_true", help="examples of two segments, half of them from another document")
    parser.add_argument("--static", action="store_true", help="the same examples and masks at every epoch")
    parser.add_argument("--shards", type=Path, metavar="DIR", help="where the tokenised corpus is kept (without it: in --out)")
    parser.add_argument("--processes", type=_positive, default=1, help="that tokenise")


def _augment(commands: Any) -> None:
    parser = _command(commands, "augment", "a task's training data with words replaced (paper, Algorithm 1)", threads=False)
    parser.add_argument("--mlm", required=True, metavar="DIR|ID", help="a BERT with its masked-language-model head")
    parser.add_argument("--vectors", required=True, metavar="FILE|NAME", help="GloVe, word2vec or fastText: see docs/augmentation.md")
    _task_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets a longer train file, and the task's other files")
    parser.add_argument("--recipe", choices=("paper", "huawei-2019"), default="paper", help="Algorithm 1, or the released code's variant")
    parser.add_argument("--copies", type=_positive, metavar="N", help="augmented rows an example (without it: the recipe's own)")
    parser.add_argument("--probability", type=float, default=0.4, help="p_t: how likely a word is replaced")
    parser.add_argument("--candidates", type=_positive, default=15, help="K: how many words BERT or GloVe may choose from")
    parser.add_argument("--no-original", action="store_true", help="leave the rows of the original out")
    parser.add_argument("--provenance", action="store_true", help="write provenance.jsonl: each row's source and every replacement")
    parser.add_argument("--processes", type=_positive, metavar="N", help="that replace words (without it: one a core)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


_STUDENT = "a model directory, a shape (4L-312D-12H-1200F), or layers of the teacher (teacher:3,6,9,12)"


def _distill(commands: Any) -> None:
    distill = commands.add_parser("distill", help="distil a student from a teacher: general, then on a task")
    stages = distill.add_subparsers(dest="what", required=True, metavar="general|task")
    general = _command(stages, "general", "general distillation: a pre-trained teacher, raw text, no labels")
    general.add_argument("--teacher", required=True, metavar="DIR|ID", help="a BERT that was pre-trained, not fine-tuned")
    _teacher_dtype_option(general)
    general.add_argument("--student", required=True, metavar="DIR|SHAPE|teacher:…", help=_STUDENT)
    _corpus_options(general)
    _length_option(general, None)
    general.add_argument("--out", required=True, type=Path, metavar="DIR")
    _recipe_option(general)
    general.add_argument("--epochs", type=float, metavar="N", help="passes over the corpus" + _OF_RECIPE)
    general.add_argument("--lr", type=float, metavar="LR", help="learning rate" + _OF_RECIPE)
    _training_options(general, None)
    parser = _command(stages, "task", "task-specific distillation: intermediate layers, then prediction")
    parser.add_argument("--teacher", required=True, metavar="DIR|ID", help="a BERT fine-tuned on the task")
    _teacher_dtype_option(parser)
    parser.add_argument("--student", required=True, metavar="DIR|SHAPE|teacher:…", help=_STUDENT)
    _task_options(parser)
    _length_option(parser, None)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--stage", choices=("intermediate", "prediction", "both"), default="both", help="prediction goes on from the other")
    parser.add_argument("--prediction-data", type=Path, metavar="DIR", help="another directory for the prediction step: STS-B's original")
    parser.add_argument("--grid", action="store_true", help="prediction with batch 16, 32 and lr 1e-5, 2e-5, 3e-5: the best on dev stays")
    _two_step_options(parser)
    _training_options(parser, None)


def _two_step_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--intermediate-epochs", type=float, metavar="N", help="passes over the data" + _OF_RECIPE)
    parser.add_argument("--intermediate-lr", type=float, metavar="LR", help="learning rate" + _OF_RECIPE)
    parser.add_argument("--epochs", type=float, metavar="N", help="of the prediction step" + _OF_RECIPE)
    parser.add_argument("--lr", type=float, metavar="LR", help="of the prediction step" + _OF_RECIPE)
    least = "at most this much disk for the teacher's answers, 0: none (without it: what is free)"
    parser.add_argument("--cache-gb", type=_size, metavar="GB", help=least)
    kept = "where the teacher's answers stay, for other runs with the same teacher and data (without it: nowhere)"
    parser.add_argument("--teacher-cache", type=Path, metavar="DIR", help=kept)
    _recipe_option(parser)


def _ablate(commands: Any) -> None:
    parser = _command(commands, "ablate", "the paper's ablations (tables 2-4) on one task, over several seeds")
    parser.add_argument("--teacher", required=True, metavar="DIR|ID", help="a BERT fine-tuned on the task")
    parser.add_argument("--student", required=True, metavar="SHAPE", help="such as 4L-312D-12H-1200F")
    _task_options(parser)
    _length_option(parser, None)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--augmented", type=Path, metavar="DIR", help="what augment made of --data")
    parser.add_argument("--general-teacher", metavar="DIR|ID", help="a BERT that was only pre-trained, with --corpus")
    _corpus_options(parser, required=False)
    parser.add_argument("--general-epochs", type=float, metavar="N", help="of general distillation" + _OF_RECIPE)
    parser.add_argument("--general-lr", type=float, metavar="LR", help="of general distillation" + _OF_RECIPE)
    _two_step_options(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="of its runs, one each")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help=f"of {', '.join(v.slug for v in VARIANTS)} (without it: all)")
    _training_options(parser, None)


def _recipe_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", default="default", metavar="NAME|FILE", help=f"{', '.join(RECIPES)}, or a .toml file of switches")
    more = "a switch of the recipe (docs/recipes.md), set on top of it; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=more)


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "a model's metrics on a task's dev files")
    parser.add_argument("--model", required=True, metavar="DIR|ID")
    _task_options(parser)
    _length_option(parser, None, _OF_TASK)
    parser.add_argument("--split", action="append", metavar="NAME", help="another than dev: test, or all of one file; may be repeated")


def _predict(commands: Any) -> None:
    parser = _command(commands, "predict", "a model's answer to each text (a pair: 'first ||| second')")
    parser.add_argument("--model", required=True, metavar="DIR|ID")
    rows = "or a table with the text's columns"
    parser.add_argument("--file", type=Path, metavar="FILE", help=f"a text a line instead of TEXT, {rows}; - for standard input")
    parser.add_argument("--task", metavar="NAME", help="with --data (without it: the one that the model remembers)")
    _custom_options(parser)
    parser.add_argument("--data", type=Path, metavar="DIR|FILE", help="the task's directory, whose test files are answered; or one file")
    to = "a .csv, .tsv or .jsonl of probabilities; with --data also a directory for the leaderboard's files"
    parser.add_argument("--out", type=Path, metavar="FILE|DIR", help=to)
    parser.add_argument("text", nargs="*", metavar="TEXT")
    _length_option(parser, None, _OF_TASK)


def _convert(commands: Any) -> None:
    parser = _command(commands, "convert", "weights from elsewhere to a model directory")
    parser.add_argument("source", metavar="SRC", help="a directory, .safetensors, .bin, TensorFlow checkpoint, or Hugging Face id")
    parser.add_argument("destination", type=Path, metavar="DST")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that DST holds")


def _export(commands: Any) -> None:
    parser = _command(commands, "export", "a model as an ONNX graph: onnxruntime answers quicker than anything here", threads=False)
    parser.add_argument("--model", required=True, metavar="DIR|ID")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new directory: model.onnx, config and tokenizer")
    parser.add_argument("--onnx", action="store_true", default=True, help="the format, of which there is one")
    parser.add_argument("--int8", action="store_true", help="and model_int8.onnx: weights of 8 bits (dynamic quantisation)")
    parser.add_argument("--task", metavar="NAME", help="with --data (without it: the one that the model remembers)")
    parser.add_argument("--data", type=Path, metavar="DIR|FILE", help="the task's: what each file scores on its dev examples is shown")
    _custom_options(parser)
    _length_option(parser, None, _OF_TASK)


def _clean(commands: Any) -> None:
    parser = commands.add_parser("clean", help=_CLEAN, description=_CLEAN, formatter_class=_Help)
    which = "an --out, or a directory above several; of a run that has not ended nothing goes"
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help=which)
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")


_CLEAN = "remove what only --resume needs of runs that have ended, and say what it frees"


def _info(commands: Any) -> None:
    parser = _command(commands, "info", "what a model costs: parameters, FLOPs, speed-up (the paper's Table 1), head, files")
    parser.add_argument("model", metavar="MODEL", help="a directory, a Hugging Face id, or a shape: 4L-312D-12H-1200F")
    parser.add_argument("--teacher", metavar="DIR|ID|SHAPE", help="how many times smaller and cheaper than this the model is")
    parser.add_argument("--length", type=_positive, default=128, metavar="L", help="tokens of the sentence whose FLOPs are counted")
    parser.add_argument("--measure", action="store_true", help="how many times quicker than --teacher, on this machine")
    parser.add_argument("--batch-size", type=_positive, default=32, metavar="B", help="sentences at a time that --measure takes")


def _report(commands: Any) -> None:
    parser = _command(commands, "report", "what runs did, on one page that needs no network: curves, attention, layers, answers")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the --out of finetune, distill general or distill task")
    # Not `out`: that is a directory which one run at a time claims, and this a file which is replaced.
    parser.add_argument("--out", dest="page", required=True, type=Path, metavar="FILE.html", help="the page; one that is there is replaced")
    parser.add_argument("--teacher", metavar="DIR|ID", help="where the runs' teacher is (without it: where they say)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the runs' data are (without it: where they say)")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="whose attention is shown; a pair: 'first ||| second'")
    parser.add_argument("--sentences", type=_positive, default=6, metavar="N", help="of the data's, whose attention is shown: up to 24")
    most = "dev examples that are judged at most (without it: 10000, of tokens 4000, of squad 500)"
    parser.add_argument("--examples", type=_positive, metavar="N", help=most)
    parser.add_argument("--no-speed", action="store_true", help="do not measure how quick the models are")


def _demo(commands: Any) -> None:
    parser = _command(commands, "demo", "the whole method on small real data, in minutes")
    parser.add_argument("--out", type=Path, default=Path("minitinybert-demo"), metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--teacher", metavar="DIR|ID", help="other weights than the demo's own, such as bert-base-uncased")


def _audit(commands: Any) -> None:
    _command(commands, "audit", "prove every gradient on this machine")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value
