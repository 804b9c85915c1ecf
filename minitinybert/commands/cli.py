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
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..claims import claimed
from ..errors import CRASHED, InputError, one_line, out_of_memory
from ..files import cause, check_apart, json_text
from . import inputs, streams
from .arguments import build_parser
from .recipe_file import load_recipe

if TYPE_CHECKING:
    from ..engine.ranks import Ranks
    from .results import Result, Scores

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
    from ..engine import ranks
    from ..training.loop import Stopped

    def work(ours: Ranks) -> int:
        try:
            result = perform(args, ours)
        except Stopped as stopped:
            if ours.first:
                print(f"minitinybert: {stopped}", file=sys.stderr)
            return 128 + stopped.signal
        text = json_text(result.to_json(), indent=2) if args.json else str(result)
        if text:
            print(text)
        return result.status

    return ranks.run(args.command, work)


def perform(args: argparse.Namespace, ours: Ranks) -> Result:
    """What a command comes to, on one of the run's ranks; while it works, its --out is claimed.
    InputError for bad input, Stopped on a signal."""
    from .. import machine

    if getattr(args, "tf32", False):
        machine.allow_tf32(args.device)
    args.ranks = ours
    out = getattr(args, "out", None) or getattr(args, "destination", None)
    out = None if args.command == "predict" and _is_table(out) else out
    with claimed(out, "DST" if args.command == "convert" else "--out") if out and ours.first else nullcontext():
        ours.wait()  # nobody begins before the claim
        return _COMMANDS[args.command](args)


def _run_finetune(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from ..training.plan import finetune_options
    from .task import finetune

    recipe = load_recipe(args.recipe, args.set)
    decided = {"optimizer": args.optimizer} if args.optimizer else {}
    with Machine(args.device, args.threads, args.ranks) as machine:
        options = finetune_options(recipe, _given(args, args.epochs, args.lr), **decided)
        results = finetune(
            args.model, inputs.task(args), args.data, args.out, options, machine, args.max_length, args.resume, recipe, args.tokenizer,
            args.keep_state,
        )  # fmt: skip
    return _scores(args.out, results)


def _run_pretrain(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from ..training.loop import Options
    from .corpus import pretrain

    with Machine(args.device, args.threads, args.ranks) as machine:
        options = Options(**_given(args, args.epochs, args.lr), optimizer=args.optimizer)
        kept = {"resume": args.resume, "keep_state": args.keep_state}
        results = pretrain(args.model, inputs.text(args), args.out, options, machine, _vocabulary(args), rate=args.mask_rate, **kept)
    return _scores(args.out, results)


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


def _run_augment(args: argparse.Namespace) -> Result:
    from ..augmentation.files import augment
    from .results import Augmented

    summary = augment(
        args.mlm, args.vectors, inputs.task(args), args.data, args.out, args.recipe, args.copies, args.probability, args.candidates,
        original=not args.no_original, provenance=args.provenance, workers=args.processes, resume=args.resume, seed=args.seed,
        device=args.device, ranks=args.ranks,
    )  # fmt: skip
    return Augmented(**summary)


def _run_distill(args: argparse.Namespace) -> Result:
    return _run_distill_general(args) if args.what == "general" else _run_distill_task(args)


def _run_distill_general(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from .corpus import distill_general

    with Machine(args.device, args.threads, args.ranks, args.teacher_dtype) as machine:
        recipe = load_recipe(args.recipe, args.set)
        given = _given(args, args.epochs, args.lr)
        kept = {"resume": args.resume, "keep_state": args.keep_state}
        results = distill_general(args.teacher, args.student, inputs.text(args), args.out, given, machine, recipe, **kept)
    return _scores(args.out, results)


def _run_distill_task(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from .task import distill_task

    task, recipe = inputs.task(args), load_recipe(args.recipe, args.set)
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
            keep_state=args.keep_state,
        )
    model = args.out / "intermediate" if args.stage == "intermediate" else args.out
    return _scores(model, results)


def _run_ablate(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from .ablation import study
    from .ablation.report import format_table
    from .results import Report

    task, recipe = inputs.task(args), load_recipe(args.recipe, args.set)
    with Machine(args.device, args.threads, args.ranks) as machine:
        report = study.run(
            args.teacher,
            task,
            args.data,
            args.out,
            machine,
            student_shape=args.student,
            general_teacher=args.general_teacher,
            corpus=inputs.text(args) if args.corpus else None,
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
    return Report(report, format_table(report))


def _run_evaluate(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from .answer import evaluate

    with Machine(args.device, args.threads, args.ranks) as machine:
        results = evaluate(args.model, inputs.task(args), args.data, machine, args.max_length, args.split)
    return _scores(args.model, results)


def _run_predict(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from .answer import predict, predict_test, write_probabilities
    from .results import Predictions

    table = _is_table(args.out)
    if sum(map(bool, (args.text, args.file, args.data))) != 1 or (args.data and not args.out):
        raise InputError("predict needs either TEXT…, or --file, or --data and --out for a file, or a task's test files")
    if not args.data and (args.task or (args.out and not table)):
        raise InputError("predict: --task and a directory as --out go with --data; for texts --out is a .csv, .tsv or .jsonl")
    if table:
        check_apart(args.out, *filter(None, (args.file, args.data)))
    with Machine(args.device, args.threads, args.ranks) as machine:
        if args.data:
            files = predict_test(args.model, inputs.task(args), args.data, args.out, machine, args.max_length, table)
            return Predictions(files=files)
        answers = predict(args.model, args.text or inputs.texts(args), machine, args.max_length, inputs.questions(args))
    if not table:
        return Predictions(answers)
    write_probabilities(args.out, answers)
    return Predictions(files=[str(args.out)])


def _is_table(out: Path | None) -> bool:
    return out is not None and out.suffix.lower() in (".csv", ".tsv", ".jsonl")


def _run_convert(args: argparse.Namespace) -> Result:
    from .convert import convert
    from .results import Report

    summary = convert(args.source, args.destination, args.overwrite)
    return Report(summary, "\n".join(f"{name}: {value}" for name, value in summary.items()))


def _run_export(args: argparse.Namespace) -> Result:
    from .export import export
    from .results import Report

    if args.task and not args.data:
        raise InputError("export: --task goes with --data: what each file scores on the task's dev examples")
    report = export(args.model, args.out, args.int8, inputs.task(args) if args.data else None, args.data, args.max_length)
    lines = [f"{name}\t{size:,} bytes" for name, size in report["bytes"].items()]
    lines.append(f"largest difference from this model's own outputs\t{report['difference']:.1e}")
    return Report(report, "\n".join(lines))


def _run_info(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from . import info
    from .results import Report

    with Machine(args.device, args.threads, args.ranks) as machine:
        report = info.info(args.model, machine, args.teacher, args.length, args.measure, args.batch_size)
    return Report(report, info.format_report(report))


def _run_report(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from .report import Asked, report
    from .results import Report

    asked = Asked(args.teacher, args.data, args.text, args.sentences, args.examples, not args.no_speed, args.seed)
    with Machine(args.device, args.threads, args.ranks) as machine:
        summary = report(args.runs, args.page, machine, asked)
    return Report(summary, summary["report"])


def _run_clean(args: argparse.Namespace) -> Result:
    from .clean import clean
    from .results import Report

    freed = clean(args.directories)
    return Report(freed, "\n".join(f"{path}\t{size:,} bytes freed" for path, size in freed.items()))


def _run_demo(args: argparse.Namespace) -> Result:
    from ..machine import Machine
    from . import demo
    from .results import Report

    with Machine(args.device, args.threads, args.ranks) as machine:
        report = demo.run(args.out, machine, args.seed, args.resume, args.teacher)
    return Report(report, demo.format_report(report))


def _run_audit(args: argparse.Namespace) -> Result:
    from .. import audit, machine
    from .results import Report

    results = audit.run(machine.select(args.device), args.seed)
    return Report(audit.to_json(results), audit.format_table(results), 0 if all(result.passed for result in results) else 1)


def _given(args: argparse.Namespace, epochs: float | None, lr: float | None) -> dict[str, Any]:
    """What the command line gives of a step's `training.loop.Options`; None where it does not."""
    both = {name: getattr(args, name) for name in ("batch_size", "warmup", "seed", "log_every", "save_every")}
    return {"epochs": epochs, "lr": lr, **both}


def _scores(model: str | Path, results: Mapping[str, Mapping[str, float]]) -> Scores:
    from .results import Scores

    return Scores(str(model), results)


_COMMANDS: dict[str, Callable[[argparse.Namespace], Result]] = {
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
    "report": _run_report,
    "export": _run_export,
    "clean": _run_clean,
    "audit": _run_audit,
}


if __name__ == "__main__":
    sys.exit(main())
