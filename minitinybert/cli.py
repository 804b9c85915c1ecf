"""The command line. Each command is parsed here and done in pipeline.py, demo.py, audit.py or weights/convert.py.

Exit status: 0 success, 1 a failed audit, 2 a usage error or bad input (one line on standard error), 128+n stopped by signal n.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import recipes
from .errors import InputError
from .recipes import RECIPES


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    from .train import Stopped

    try:
        return args.run(args)
    except InputError as error:
        print(f"minitinybert: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"minitinybert: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("minitinybert: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


# -------------------------------------------------------------------------------------------------------------------- parsers


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minitinybert", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(commands)
    _convert(commands)
    _finetune(commands)
    _pretrain(commands)
    _distill(commands)
    _evaluate(commands)
    _predict(commands)
    _audit(commands)
    return parser


_DESCRIPTION = "TinyBERT from scratch on NumPy and CuPy: fine-tune a teacher, distil a student, prove every gradient."


def _command(commands: Any, name: str, help: str, run: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda|cuda:N", help="where the arrays live")
    parser.add_argument("--threads", type=_positive, default=None, help="threads on the CPU (without it: one a core)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    parser.set_defaults(run=run)
    return parser


def _task_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", required=True, metavar="NAME", help="cola sst-2 mrpc sts-b qqp mnli qnli rte wnli, or custom")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the task's directory: train, dev (and test) files")
    parser.add_argument("--text-columns", metavar="A[,B]", help="--task custom: the text's column, or a pair's two")
    parser.add_argument("--label-column", metavar="NAME", help="--task custom: the label's column")
    _length_option(parser)


def _length_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-length", type=_positive, default=128, metavar="L", help="word pieces a text (or pair) is cut to")


def _training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=_positive, default=32)
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps over which the learning rate rises")
    parser.add_argument("--log-every", type=_positive, default=50, metavar="STEPS", help="a line in metrics.jsonl")
    parser.add_argument("--save-every", type=_positive, default=500, metavar="STEPS", help="a checkpoint, also at each epoch")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, where there is one")


def _finetune(commands: Any) -> None:
    parser = _command(commands, "finetune", "fine-tune a BERT on a task: the teacher", _run_finetune)
    parser.add_argument("--model", required=True, metavar="DIR|ID", help="a model directory, or a Hugging Face id")
    _task_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--optimizer", choices=("adamw", "bert-adam"), default="adamw")
    _training_options(parser)


def _pretrain(commands: Any) -> None:
    parser = _command(commands, "pretrain", "masked-language-model training on raw text", _run_pretrain)
    parser.add_argument("--model", required=True, metavar="DIR|ID|SHAPE", help="weights to go on from, or a shape for random ones")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="of a tokenizer.json or vocab.txt, where --model is a shape")
    _corpus_options(parser)
    parser.add_argument("--mask-rate", type=float, default=0.15, help="share of the positions that are predicted")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--optimizer", choices=("adamw", "bert-adam"), default="adamw")
    _training_options(parser)


def _corpus_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", required=True, nargs="+", metavar="FILE", help="a sentence a line, a blank line between documents")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--plain-text", action="store_true", help="the corpus has paragraphs, not a sentence a line")
    parser.add_argument("--pairs", action="store_true", help="examples of two segments, half of them from another document")
    parser.add_argument("--static", action="store_true", help="the same examples and masks at every epoch")
    parser.add_argument("--shards", type=Path, metavar="DIR", help="where the tokenised corpus is kept (without it: in --out)")
    parser.add_argument("--processes", type=_positive, default=1, help="that tokenise")
    _length_option(parser)


def _distill(commands: Any) -> None:
    distill = commands.add_parser("distill", help="distil a student from a teacher: general, then on a task")
    stages = distill.add_subparsers(dest="what", required=True, metavar="general|task")
    general = _command(stages, "general", "general distillation: a pre-trained teacher, raw text, no labels", _run_distill_general)
    general.add_argument("--teacher", required=True, metavar="DIR|ID", help="a BERT that was pre-trained, not fine-tuned")
    general.add_argument("--student", required=True, metavar="DIR|SHAPE", help="a model directory, or a shape: 4L-312D-12H-1200F")
    _corpus_options(general)
    _recipe_option(general)
    general.add_argument("--epochs", type=float, default=3.0)
    general.add_argument("--lr", type=float, default=1e-4)
    _training_options(general)
    parser = _command(stages, "task", "task-specific distillation: intermediate layers, then prediction", _run_distill_task)
    parser.add_argument("--teacher", required=True, metavar="DIR|ID", help="a BERT fine-tuned on the task")
    parser.add_argument("--student", required=True, metavar="DIR|SHAPE", help="a model directory, or a shape: 4L-312D-12H-1200F")
    _task_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--stage", choices=("intermediate", "prediction", "both"), default="both")
    parser.add_argument("--intermediate-epochs", type=float, default=20.0)
    parser.add_argument("--intermediate-lr", type=float, default=5e-5)
    parser.add_argument("--epochs", type=float, default=3.0, help="of the prediction step")
    parser.add_argument("--lr", type=float, default=3e-5, help="of the prediction step")
    parser.add_argument("--cache-gb", type=float, default=4.0, metavar="GB", help="at most this much disk for the teacher's answers")
    _recipe_option(parser)
    _training_options(parser)


def _recipe_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", default="default", metavar="NAME|FILE", help=f"{', '.join(RECIPES)}, or a .toml file of switches")


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "a model's metrics on a task's dev files", _run_evaluate)
    parser.add_argument("--model", required=True, metavar="DIR|ID")
    _task_options(parser)
    parser.add_argument("--split", action="append", metavar="NAME", help="another split than dev, such as test; may be repeated")


def _predict(commands: Any) -> None:
    parser = _command(commands, "predict", "a model's answer to each text (a pair: 'first ||| second')", _run_predict)
    parser.add_argument("--model", required=True, metavar="DIR|ID")
    parser.add_argument("--task", metavar="NAME", help="with --data: whose test file is answered")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the task's directory; its test files are answered")
    parser.add_argument("--out", type=Path, metavar="DIR", help="with --data: where the leaderboard's files go")
    parser.add_argument("text", nargs="*", metavar="TEXT")
    _length_option(parser)


def _convert(commands: Any) -> None:
    parser = _command(commands, "convert", "weights from elsewhere to a model directory", _run_convert)
    parser.add_argument("source", metavar="SRC", help="a directory, .safetensors, .bin, TensorFlow checkpoint, or Hugging Face id")
    parser.add_argument("destination", type=Path, metavar="DST")


def _demo(commands: Any) -> None:
    parser = _command(commands, "demo", "the whole method on small real data, in minutes", _run_demo)
    parser.add_argument("--out", type=Path, default=Path("minitinybert-demo"), metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--teacher", metavar="DIR|ID", help="other weights than the demo's own, such as bert-base-uncased")


def _audit(commands: Any) -> None:
    _command(commands, "audit", "prove every gradient on this machine", _run_audit)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


# ------------------------------------------------------------------------------------------------------------------- commands


def _run_finetune(args: argparse.Namespace) -> int:
    from . import pipeline

    with pipeline.Machine(args.device, args.threads) as machine:
        options = replace(_options(args, args.epochs, args.lr), optimizer=args.optimizer)
        results = pipeline.finetune(args.model, _task(args), args.data, args.out, options, machine, args.max_length, args.resume)
    return _report(args, {"model": str(args.out), "results": results})


def _run_pretrain(args: argparse.Namespace) -> int:
    from . import pipeline, pretrain

    with pipeline.Machine(args.device, args.threads) as machine:
        options = replace(_options(args, args.epochs, args.lr), optimizer=args.optimizer)
        results = pretrain.pretrain(
            args.model, _text(args), args.out, options, machine, args.tokenizer, rate=args.mask_rate, resume=args.resume
        )
    return _report(args, {"model": str(args.out), "results": results})


def _run_distill_general(args: argparse.Namespace) -> int:
    from . import pipeline, pretrain

    with pipeline.Machine(args.device, args.threads) as machine:
        options, recipe = _options(args, args.epochs, args.lr), recipes.load(args.recipe)
        results = pretrain.distill_general(args.teacher, args.student, _text(args), args.out, options, machine, recipe, args.resume)
    return _report(args, {"model": str(args.out), "results": results})


def _run_distill_task(args: argparse.Namespace) -> int:
    from . import pipeline

    with pipeline.Machine(args.device, args.threads) as machine:
        results = pipeline.distill_task(
            args.teacher,
            args.student,
            _task(args),
            args.data,
            args.out,
            machine,
            stage=args.stage,
            intermediate=_options(args, args.intermediate_epochs, args.intermediate_lr),
            prediction=_options(args, args.epochs, args.lr),
            recipe=recipes.load(args.recipe),
            max_length=args.max_length,
            resume=args.resume,
            cache_gb=args.cache_gb,
        )
    return _report(args, {"model": str(args.out), "results": results})


def _run_evaluate(args: argparse.Namespace) -> int:
    from . import pipeline

    with pipeline.Machine(args.device, args.threads) as machine:
        results = pipeline.evaluate(args.model, _task(args), args.data, machine, args.max_length, args.split)
    return _report(args, {"model": args.model, "results": results})


def _run_predict(args: argparse.Namespace) -> int:
    from . import pipeline

    if bool(args.text) == bool(args.data) or (args.data and not (args.task and args.out)):
        raise InputError("predict needs either TEXT…, or --task, --data and --out for a task's test files")
    with pipeline.Machine(args.device, args.threads) as machine:
        if args.data:
            files = pipeline.predict_test(args.model, _task(args), args.data, args.out, machine, args.max_length)
            return _print_json(files) if args.json else print("\n".join(files)) or 0
        answers = pipeline.predict(args.model, args.text, machine, args.max_length)
    if args.json:
        return _print_json(answers)
    for answer in answers:
        label = answer["label"] if "label" in answer else f"{answer['score']:.4f}"
        sure = f"\t{answer['probabilities'][label]:.4f}" if "label" in answer else ""
        print(f"{label}{sure}\t{answer['text']}")
    return 0


def _run_convert(args: argparse.Namespace) -> int:
    from .weights.convert import convert

    summary = convert(args.source, args.destination)
    if args.json:
        return _print_json(summary)
    print("\n".join(f"{name}: {value}" for name, value in summary.items()))
    return 0


def _run_demo(args: argparse.Namespace) -> int:
    from . import demo, pipeline

    with pipeline.Machine(args.device, args.threads) as machine:
        report = demo.run(args.out, machine, args.seed, args.resume, args.teacher)
    if args.json:
        return _print_json(report)
    print(demo.format_report(report))
    return 0


def _run_audit(args: argparse.Namespace) -> int:
    from . import audit, device

    results = audit.run(device.select(args.device), args.seed)
    if args.json:
        _print_json(audit.to_json(results))
    else:
        print(audit.format_table(results))
    return 0 if all(result.passed for result in results) else 1


def _options(args: argparse.Namespace, epochs: float, lr: float) -> Any:
    from .train import Options

    return Options(epochs, args.batch_size, lr, args.warmup, seed=args.seed, log_every=args.log_every, save_every=args.save_every)


def _text(args: argparse.Namespace) -> Any:
    from .pretrain import Text

    return Text(args.corpus, args.max_length, args.pairs, not args.static, not args.plain_text, args.shards, args.processes)


def _task(args: argparse.Namespace) -> Any:
    from .data import glue

    if args.task == "custom":
        if not (args.text_columns and args.label_column):
            raise InputError("--task custom needs --text-columns and --label-column")
        return glue.custom_task(args.data, args.text_columns.split(","), args.label_column)
    if args.task.lower() not in glue.TASKS:
        raise InputError(f"--task {args.task}: choose one of {', '.join(glue.TASKS)}, or custom")
    return glue.TASKS[args.task.lower()]


def _report(args: argparse.Namespace, report: dict[str, Any]) -> int:
    if args.json:
        return _print_json(report)
    for split, values in report["results"].items():
        print(f"{report['model']}\t{split}\t" + "\t".join(f"{name} {value:.4f}" for name, value in values.items()))
    return 0


def _print_json(value: Any) -> int:
    print(json.dumps(value, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
