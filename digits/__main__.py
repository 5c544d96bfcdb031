"""The command line: `digits COMMAND`, or `python -m digits COMMAND`."""

import argparse
import json
import os
import sys
from pathlib import Path

from digits.errors import ConfigError, DigitsError

MODEL = "a run's folder, a model's folder, a *.ckpt, *.pt, *.keras or *.h5, or owner/model on the Hugging Face hub"
EVALUATE = """\
Score a model on MNIST's test split: errors and their 95 % interval, calibration, per-digit figures. Several models are
scored together, as an ensemble: by the mean of their probabilities. Without any, the one that the package carries.
"""
EXPORT = """\
Write a model into a folder, as the Hugging Face hub has them: weights (safetensors) and the network's settings. Or
into one file: for torch (.pt, a dict of config and state_dict), for ONNX (.onnx, from uint8 images to probabilities) or
for Keras (.keras, or the legacy .h5).
"""
IMPORT_KERAS = """\
Read the weights of the original Keras model, without Keras or TensorFlow, and write them into a folder as digits export
does. FILE is what model.save or model.save_weights wrote: .keras, .weights.h5 or the legacy .h5.
"""
PUSH = """\
Upload a model with its card and plots to the Hugging Face hub. Log in before, with `hf auth login` or HF_TOKEN.
"""
TPU_CHECK = """\
Compile the train step and the test step for a TPU, on a machine without one, by the TPU's own compiler, and say what
it says of them. Cycles, images a second and shares are that compiler's estimates; nothing is run on a TPU.
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse ``arguments``, call what they name, and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (DigitsError, OSError) as error:
        print(f"digits: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    except KeyboardInterrupt:
        print("digits: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="digits", description="DeepDigits reads handwritten digits. To train it: python train.py --help"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    for name, models in (("evaluate", "*"), ("ensemble", "+")):
        help_ = "score a model on MNIST's test split" if name == "evaluate" else "score several models together"
        command = commands.add_parser(name, help=help_, description=EVALUATE)
        command.add_argument("models", nargs=models, metavar="MODEL", help=MODEL)
        command.add_argument("--data", default="mnist", choices=("mnist", "mnist5k"), help="default: %(default)s")
        command.add_argument("--data-dir", type=Path, metavar="DIR", help="where MNIST is, or will be downloaded to")
        command.add_argument("--robustness", action="store_true", help="also with images shifted, turned, blurred ...")
        command.add_argument("--json", action="store_true", help="print a JSON object")
        command.add_argument("--save", type=Path, metavar="DIR", help="write summary.json and plots there")
        command.set_defaults(run=_evaluate, ensemble=name == "ensemble")

    command = commands.add_parser("export", help="write a model into a folder or a file", description=EXPORT)
    command.add_argument("target", type=Path, metavar="FOLDER_OR_FILE", help="where to; made if it is not there")
    command.add_argument("model", nargs="?", metavar="MODEL", help=f"{MODEL} (default: the package's own)")
    formats = ("safetensors", "torch", "onnx", "keras")
    command.add_argument("--format", default=formats[0], choices=formats, help="default: %(default)s, a folder")
    command.add_argument("--half", action="store_true", help="keep the weights in float16; in a folder only")
    command.set_defaults(run=_export)

    command = commands.add_parser("import-keras", help="read a model of the original", description=IMPORT_KERAS)
    command.add_argument("file", type=Path, metavar="FILE", help="of Keras")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="where to; made if it is not there")
    command.set_defaults(run=_import_keras)

    command = commands.add_parser("push", help="upload a model to the Hugging Face hub", description=PUSH)
    command.add_argument("repository", metavar="OWNER/NAME", help="is made if it is not there")
    command.add_argument(
        "model", nargs="?", metavar="MODEL", help="a run's or a model's folder (default: the package's)"
    )
    command.add_argument("--private", action="store_true", help="if it is made, for you alone")
    command.add_argument("--dry-run", action="store_true", help="name the files, upload nothing")
    command.set_defaults(run=_push)

    command = commands.add_parser(
        "tpu-check", help="compile the steps for a TPU that is not there", description=TPU_CHECK
    )
    command.add_argument("--topology", default="v5e:2x4", help="kind and shape of the slice (default: %(default)s)")
    command.add_argument("--scale", action="store_true", help="for 8 to 256 chips, at the same batch a chip")
    command.add_argument("--json", action="store_true", help="print a JSON object, with --scale a list of them")
    command.add_argument("overrides", nargs="*", help="as for train.py: experiment=tpu data.batch_size=8192 ...")
    command.set_defaults(run=_tpu_check)
    return parser


def _evaluate(options: argparse.Namespace) -> None:
    from digits.evaluate import evaluate
    from digits.report.tables import print_robustness, print_run

    if options.ensemble and len(options.models) < 2:
        raise ConfigError("ensemble: takes two models or more; for one use digits evaluate")
    data_dir = options.data_dir or os.environ.get("DIGITS_DATA_DIR", "~/.cache/deepdigits")
    summary = evaluate(options.models, options.data, Path(data_dir).expanduser(), options.robustness, options.save)
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    print_run(summary, what="Evaluation")
    if options.robustness:
        print_robustness(summary["robustness"])


def _export(options: argparse.Namespace) -> None:
    from digits.exchange.model_folder import export

    export(options.model, options.target, options.half, options.format)
    print(options.target)


def _import_keras(options: argparse.Namespace) -> None:
    from digits.exchange.keras_file import load_keras
    from digits.exchange.model_folder import save_model

    save_model(options.folder, load_keras(options.file))
    print(options.folder)


def _push(options: argparse.Namespace) -> None:
    from digits.exchange.hub import files_to_push, push

    if options.dry_run:
        folder, files = files_to_push(options.model)
        print("\n".join(str(folder / file) for file in files))
    else:
        print(push(options.model, options.repository, options.private))


def _tpu_check(options: argparse.Namespace) -> None:
    from digits.overrides import configure
    from digits.report.tables import print_tpu_check
    from digits.xla.tpu_check import tpu_check

    config = configure(options.overrides)
    checks = tpu_check(config, options.topology, options.scale, lambda line: print(line, file=sys.stderr))
    if options.json:
        print(json.dumps(checks if options.scale else checks[0], indent=2))
    else:
        print_tpu_check(checks)


if __name__ == "__main__":
    sys.exit(main())
