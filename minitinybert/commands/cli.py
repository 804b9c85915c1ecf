"""The command line: arguments.py says what each command takes, task.py, corpus.py, answer.py,
demo.py, ablation/ … do it.

Exit status: 0 success, 1 a failed audit, 2 a usage error, bad input or not enough of memory or disk
(one line on standard error), 70 an error in the program (a traceback), 128+n stopped by signal n,
among them 141: nobody reads what is printed.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..claims import claimed
from ..errors import CRASHED, InputError, one_line, out_of_memory
from ..files import cause, json_text
from . import streams
from .arguments import build_parser
from .recipe_file import load_recipe

_UNREAD = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    streams.prepare()
    try:
        try:
            return _answer(argv)
        finally:
            sys.stdout.flush()  # here, where what goes wrong is told
    except BrokenPipeError:
        streams.hush()
        return _UNREAD
    except OSError as error:
        streams.hush()
        return _complain(f"standard output: {error.strerror or error}", 2)


def _answer(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # what overflows shows in the loss, which is looked at
            return _run(args)
    except InputError as error:
        return _complain(str(error), 2)
    except MemoryError as error:
        return _complain(out_of_memory(error), 2)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _complain(f"{error.filename or 'a file'}: {cause(error)}; check the path and its permissions", 2)
    except Exception:
        traceback.print_exc()
        return _complain("an error in the program, not in its input: please report the lines above", CRASHED)


def _complain(line: str, status: int) -> int:
    print(f"minitinybert: {one_line(line)}", file=sys.stderr)
    return status


def _run(args: argparse.Namespace) -> int:
    from .. import machine
    from ..engine import ranks
    from ..training.loop import Stopped

    def work(ours: Any) -> int:
        args.ranks = ours
        out = getattr(args, "out", None) or getattr(args, "destination", None)
        try:
            with claimed(out, "DST" if args.command == "convert" else "--out") if out and ours.first else nullcontext():
                ours.wait()  # nobody begins before the claim
                return _COMMANDS[args.command](args)
        except Stopped as stopped:
            if ours.first:
                print(f"minitinybert: {stopped}", file=sys.stderr)
            return 128 + stopped.signal

    if getattr(args, "tf32", False):
        machine.allow_tf32(args.device)
    return ranks.run(args.command, work)


def _run_finetune(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from ..training.plan import finetune_options
    from .task import finetune

    recipe = load_recipe(args.recipe, args.set)
    decided = {"optimizer": args.optimizer} if args.optimizer else {}
    with Machine(args.device, args.threads, args.ranks) as machine:
        options = finetune_options(recipe, _given(args, args.epochs, args.lr), **decided)
        results = finetune(
            args.model, _task(args), args.data, args.out, options, machine, args.max_length, args.resume, recipe, args.tokenizer
        )  # fmt: skip
    return _report(args, {"model": str(args.out), "results": results})


def _run_pretrain(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from ..training.loop import Options
    from .corpus import pretrain

    with Machine(args.device, args.threads, args.ranks) as machine:
        options = Options(**_given(args, args.epochs, args.lr), optimizer=args.optimizer)
        results = pretrain(args.model, _text(args), args.out, options, machine, _vocabulary(args), rate=args.mask_rate, resume=args.resume)
    return _report(args, {"model": str(args.out), "results": results})


def _vocabulary(args: argparse.Namespace) -> Any:
    from ..data.vocabulary import train_vocabulary

    if not args.train_vocabulary:
        if args.cased or args.keep_accents:
            raise InputError("--cased and --keep-accents are of --train-vocabulary; a vocabulary that is there says so itself")
        return args.tokenizer
    if args.ranks.first:
        train_vocabulary(args.corpus, args.train_vocabulary, args.out / "tokenizer", not args.cased, args.keep_accents)
    args.ranks.wait()
    return args.out / "tokenizer"


def _run_augment(args: argparse.Namespace) -> int:
    from ..augmentation.files import augment

    summary = augment(
        args.mlm, args.vectors, _task(args), args.data, args.out, args.recipe, args.copies, args.probability, args.candidates,
        original=not args.no_original, provenance=args.provenance, workers=args.processes, resume=args.resume, seed=args.seed,
        device=args.device, ranks=args.ranks,
    )  # fmt: skip
    if args.json:
        return _print_json(summary)
    print("\n".join(f"{name}: {value}" for name, value in summary.items()))
    return 0


def _run_distill(args: argparse.Namespace) -> int:
    return _run_distill_general(args) if args.what == "general" else _run_distill_task(args)


def _run_distill_general(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from .corpus import distill_general

    with Machine(args.device, args.threads, args.ranks, args.teacher_dtype) as machine:
        recipe = load_recipe(args.recipe, args.set)
        given = _given(args, args.epochs, args.lr)
        results = distill_general(args.teacher, args.student, _text(args), args.out, given, machine, recipe, args.resume)
    return _report(args, {"model": str(args.out), "results": results})


def _run_distill_task(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from .task import distill_task

    task, recipe = _task(args), load_recipe(args.recipe, args.set)
    with Machine(args.device, args.threads, args.ranks, args.teacher_dtype) as machine:
        results = distill_task(
            args.teacher,
            args.student,
            task,
            args.data,
            args.out,
            machine,
            stage=args.stage,
            intermediate=_given(args, args.intermediate_epochs, args.intermediate_lr),
            prediction=_given(args, args.epochs, args.lr),
            recipe=recipe,
            max_length=args.max_length,
            resume=args.resume,
            cache_gb=args.cache_gb,
            teacher_cache=args.teacher_cache,
            prediction_data=args.prediction_data,
            grid=args.grid,
        )
    model = args.out / "intermediate" if args.stage == "intermediate" else args.out
    return _report(args, {"model": str(model), "results": results})


def _run_ablate(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from .ablation import study
    from .ablation.report import format_table

    task, recipe = _task(args), load_recipe(args.recipe, args.set)
    with Machine(args.device, args.threads, args.ranks) as machine:
        report = study.run(
            args.teacher,
            task,
            args.data,
            args.out,
            machine,
            student_shape=args.student,
            general_teacher=args.general_teacher,
            corpus=_text(args) if args.corpus else None,
            augmented=args.augmented,
            seeds=args.seeds,
            variants=args.variants,
            recipe=recipe,
            general=_given(args, args.general_epochs, args.general_lr),
            intermediate=_given(args, args.intermediate_epochs, args.intermediate_lr),
            prediction=_given(args, args.epochs, args.lr),
            max_length=args.max_length,
            cache_gb=args.cache_gb,
            teacher_cache=args.teacher_cache,
            resume=args.resume,
        )
    if args.json:
        return _print_json(report)
    print(format_table(report))
    return 0


def _run_evaluate(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from .answer import evaluate

    with Machine(args.device, args.threads, args.ranks) as machine:
        results = evaluate(args.model, _task(args), args.data, machine, args.max_length, args.split)
    return _report(args, {"model": args.model, "results": results})


def _run_predict(args: argparse.Namespace) -> int:
    from ..data.text import on_one_line
    from ..machine import Machine
    from .answer import predict, predict_test
    from .answer_tokens import shown

    if sum(map(bool, (args.text, args.file, args.data))) != 1 or (args.data and not (args.task and args.out)):
        raise InputError("predict needs either TEXT…, or --file, or --task, --data and --out for a task's test files")
    if not args.data and (args.task or args.out):
        raise InputError("predict: --task and --out go with --data, for a task's test files")
    with Machine(args.device, args.threads, args.ranks) as machine:
        if args.data:
            files = predict_test(args.model, _task(args), args.data, args.out, machine, args.max_length)
            return _print_json(files) if args.json else print("\n".join(files)) or 0
        answers = predict(args.model, args.text or _lines(args.file), machine, args.max_length, _squad_task(args))
    if args.json:
        return _print_json(answers)
    for answer in answers:
        print(shown(answer) if "words" in answer or "answer" in answer else f"{_said(answer)}\t{on_one_line(answer['text'])}")
    return 0


def _said(answer: dict[str, Any]) -> str:
    """One of `predict`'s answers on a line: the label and its probability, each label of several
    and its own, or the number."""
    if "score" in answer:
        return f"{answer['score']:.4f}"
    p = answer["probabilities"]
    if "label" in answer:
        return f"{answer['label']}\t{p[answer['label']]:.4f}"
    return ", ".join(f"{label} {p[label]:.4f}" for label in answer["labels"]) or "none"


def _run_convert(args: argparse.Namespace) -> int:
    from .convert import convert

    summary = convert(args.source, args.destination, args.overwrite)
    if args.json:
        return _print_json(summary)
    print("\n".join(f"{name}: {value}" for name, value in summary.items()))
    return 0


def _run_export(args: argparse.Namespace) -> int:
    from .export import export

    if (args.task is None) != (args.data is None):
        raise InputError("export: --task and --data go together: what each file scores on the task's dev examples")
    report = export(args.model, args.out, args.int8, _task(args) if args.task else None, args.data, args.max_length)
    if args.json:
        return _print_json(report)
    for name, size in report["bytes"].items():
        print(f"{name}\t{size:,} bytes")
    print(f"largest difference from this model's own outputs\t{report['difference']:.1e}")
    return 0


def _run_info(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from . import info

    with Machine(args.device, args.threads, args.ranks) as machine:
        report = info.info(args.model, machine, args.teacher, args.length, args.measure, args.batch_size)
    return _print_json(report) if args.json else print(info.format_report(report)) or 0


def _run_demo(args: argparse.Namespace) -> int:
    from ..machine import Machine
    from . import demo

    with Machine(args.device, args.threads, args.ranks) as machine:
        report = demo.run(args.out, machine, args.seed, args.resume, args.teacher)
    if args.json:
        return _print_json(report)
    print(demo.format_report(report))
    return 0


def _run_audit(args: argparse.Namespace) -> int:
    from .. import audit, machine

    results = audit.run(machine.select(args.device), args.seed)
    if args.json:
        _print_json(audit.to_json(results))
    else:
        print(audit.format_table(results))
    return 0 if all(result.passed for result in results) else 1


def _given(args: argparse.Namespace, epochs: float | None, lr: float | None) -> dict[str, Any]:
    """What the command line gives of a step's `training.loop.Options`; None where it does not."""
    both = {name: getattr(args, name) for name in ("batch_size", "warmup", "seed", "log_every", "save_every")}
    return {"epochs": epochs, "lr": lr, **both}


def _lines(file: Path) -> list[str]:
    """The texts of a file (- for standard input), one a line, blank ones too: answer n is line n's."""
    from ..data.text import numbered, read_lines
    from ..progress import log

    lines = [line for _, line in (numbered(sys.stdin.buffer, file) if str(file) == "-" else read_lines(file))]
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if len(blank) == len(lines):
        raise InputError(f"{file}: holds no text")
    if blank:
        log(f"warning: {file}: {len(blank)} of {len(lines)} lines are blank, line {blank[0]} the first; each is answered as an empty text")
    return lines


def _text(args: argparse.Namespace) -> Any:
    from ..training.plan import GENERAL_LENGTH
    from .corpus import Text

    length = args.max_length or GENERAL_LENGTH
    return Text(args.corpus, length, args.pairs, not args.static, not args.plain_text, args.shards, args.processes)


def _task(args: argparse.Namespace) -> Any:
    from ..data import glue

    unlabelled: Any = "drop" if getattr(args, "drop_unlabelled", False) else "refuse"
    if args.task == "custom":
        return _custom_task(args, unlabelled)
    name = args.task.lower()
    if name in ("tokens", "squad"):
        if unlabelled == "drop":
            raise InputError(f"--task {name}: --drop-unlabelled is of tasks with one label a text")
        return _tokens_task(args) if name == "tokens" else _squad_task(args)
    if name not in glue.TASKS:
        raise InputError(f"--task {args.task}: choose one of {', '.join(glue.TASKS)}, tokens, squad, or custom")
    return replace(glue.TASKS[name], unlabelled=unlabelled)


def _custom_task(args: argparse.Namespace, unlabelled: Any) -> Any:
    """Of one's own files. What a model is to answer has that model's labels; else they are the
    training file's."""
    from ..data import glue
    from .classifiers import labels_of

    answers = args.command in ("evaluate", "predict", "export")
    if not args.text_columns or not (args.label_column or args.command == "predict"):
        raise InputError("--task custom needs --text-columns and --label-column")
    columns = [name.strip() for name in args.text_columns.split(",")]
    labels = [label.strip() for label in args.labels.split(",")] if args.labels else labels_of(args.model) if answers else None
    regression = True if args.regression or (answers and labels is None) else None
    return glue.custom_task(args.data, columns, args.label_column or "label", labels, regression, unlabelled)


def _tokens_task(args: argparse.Namespace) -> Any:
    """Words with a label each; the labels are the training file's, or those of the model that answers
    or teaches."""
    from ..data.tagging import tagging_task
    from .classifiers import labels_of

    if args.command in ("augment", "ablate"):
        raise InputError(f"--task tokens: {args.command} replaces words, or compares variants, of sentences with one label alone")
    labels = [label.strip() for label in args.labels.split(",")] if args.labels else None
    if args.command != "finetune":
        labels = labels_of(args.teacher if args.command == "distill" else args.model, "tokens")
    return tagging_task(args.data, args.text_columns, args.label_column, labels)


def _squad_task(args: argparse.Namespace) -> Any:
    """Questions on documents. Whether some have no answer is said by the file that is learned from."""
    from ..data.squad import read_questions, squad_task

    if args.command in ("augment", "ablate"):
        raise InputError(f"--task squad: {args.command} replaces words, or compares variants, of sentences with one label alone")
    learns = args.command in ("finetune", "distill")
    names = ("doc_stride", "max_query_length", "max_answer_length", "null_threshold")
    settings = {name: getattr(args, name) for name in names}
    return squad_task(learns and read_questions(args.data, "train").second, **settings)


def _report(args: argparse.Namespace, report: dict[str, Any]) -> int:
    from ..data.metrics import shown

    if args.json:
        return _print_json(report)
    for split, values in report["results"].items():
        print(f"{report['model']}\t{split}\t{shown(values)}")
    return 0


def _print_json(value: Any) -> int:
    print(json_text(value, indent=2))
    return 0


_COMMANDS = {
    "demo": _run_demo,
    "convert": _run_convert,
    "finetune": _run_finetune,
    "pretrain": _run_pretrain,
    "augment": _run_augment,
    "distill": _run_distill,
    "ablate": _run_ablate,
    "evaluate": _run_evaluate,
    "predict": _run_predict,
    "info": _run_info,
    "export": _run_export,
    "audit": _run_audit,
}


if __name__ == "__main__":
    sys.exit(main())
