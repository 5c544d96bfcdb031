"""The command line: `digits COMMAND`, or `python -m digits COMMAND`."""

import argparse
import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from digits import __version__
from digits.errors import ConfigError, DigitsError, printable
from digits.settings.usage import COMMANDS, PROGRAM

MODEL = "a run's folder, a model's folder, a *.ckpt, *.pt, *.keras or *.h5, or owner/model on the Hugging Face hub"
CONFIG_DIR = "knows the networks of your own in DIR/model/, as train does by --config-dir DIR"


def main(arguments: list[str] | None = None) -> int:
    """Parse ``arguments``, call what they name, and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if getattr(options, "config_dir", None):
            from digits.settings.targets import add_config_dir

            add_config_dir(options.config_dir)
        return options.run(options) or 0
    except BrokenPipeError:  # who reads the output has seen enough: `digits predict scans | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes it at exit
        return 141  # as of a program that SIGPIPE ends
    except (DigitsError, OSError) as error:
        print(f"digits: {printable(error)}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    except KeyboardInterrupt:
        print("digits: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Takes positional arguments after options too, where several are allowed: `export a.onnx --format onnx RUN`."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Of a command: mixed. That calls this method in its turn, and cannot take commands in itself."""
        if self._mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("digits", description=PROGRAM.description, epilog=PROGRAM.epilog(), formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"digits {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, **options: Any) -> argparse.ArgumentParser:
        usage = COMMANDS[name]
        options |= {"help": usage.summary, "description": usage.description, "epilog": usage.epilog()}
        return commands.add_parser(name, formatter_class=raw, **options)

    def add_model(command: argparse.ArgumentParser) -> None:
        command.add_argument("--model", metavar="MODEL", help=f"{MODEL} (default: the package's own)")
        command.add_argument("--config-dir", metavar="DIR", help=CONFIG_DIR)

    # options too, --help among them, are left to Hydra: no argument begins with this character
    command = add("train", prefix_chars="\0", add_help=False)
    command.add_argument("overrides", nargs="*")
    command.set_defaults(run=_train)

    command = add("sweep")
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs/NAME/sweep_TIME")
    command.set_defaults(run=_sweep)

    command = add("predict")
    command.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="a file, a folder with all pictures in it, or - for stdin"
    )
    add_model(command)
    form = command.add_mutually_exclusive_group()
    form.add_argument(
        "--json",
        action="store_const",
        dest="form",
        const="json",
        default="text",
        help="a JSON object a line, one for each picture, with boxes, probabilities, alternatives; failures have error",
    )
    form.add_argument(
        "--csv", action="store_const", dest="form", const="csv", help="a line for each digit, with the same figures"
    )
    command.add_argument("--save", type=Path, metavar="DIR", help="draw there what was read, and what the network saw")
    command.set_defaults(run=_predict)

    for name, models in (("evaluate", "*"), ("ensemble", "+")):
        command = add(name)
        command.add_argument("models", nargs=models, metavar="MODEL", help=MODEL)
        command.add_argument("--config-dir", metavar="DIR", help=CONFIG_DIR)
        command.add_argument(
            "--data",
            default="mnist",
            metavar="DATA",
            help="mnist (the default), mnist5k, fashion_mnist, kmnist or a folder of pictures",
        )
        command.add_argument("--data-dir", type=Path, metavar="DIR", help="where MNIST is, or will be downloaded to")
        command.add_argument("--robustness", action="store_true", help="also with images shifted, turned, blurred ...")
        command.add_argument("--json", action="store_true", help="print a JSON object")
        command.add_argument("--save", type=Path, metavar="DIR", help="write summary.json and plots there")
        command.set_defaults(run=_evaluate, ensemble=name == "ensemble")

    command = add("export")
    command.add_argument("target", metavar="TARGET", help="a file or a folder; made if it is not there")
    command.add_argument("surplus", nargs="*", help=argparse.SUPPRESS)
    add_model(command)
    command.add_argument(
        "--format",
        choices=("safetensors", "torch", "onnx", "keras"),
        help="default: as the ending says; safetensors is a folder",
    )
    command.add_argument("--half", action="store_true", help="keep the weights in float16; in a folder only")
    command.set_defaults(run=_export)

    command = add("import-keras")
    command.add_argument("source", type=Path, metavar="SOURCE", help="a file of Keras")
    command.add_argument("target", type=Path, metavar="TARGET", help="a folder; made if it is not there")
    command.set_defaults(run=_import_keras)

    command = add("push")
    command.add_argument("repository", metavar="OWNER/NAME", help="is made if it is not there")
    command.add_argument("surplus", nargs="*", help=argparse.SUPPRESS)
    command.add_argument("--model", metavar="MODEL", help="a run's or a model's folder (default: the package's own)")
    command.add_argument("--private", action="store_true", help="if it is made, for you alone")
    command.add_argument("--dry-run", action="store_true", help="name the files, upload nothing")
    command.set_defaults(run=_push)

    command = add("demo")
    command.add_argument(
        "--host",
        action="append",
        default=[],
        help="0.0.0.0 is for other machines too (default: 127.0.0.1); given again: a name by which the page is asked "
        "for, beside addresses and localhost",
    )
    command.add_argument("--port", type=int, help="default: 7860")
    add_model(command)
    command.add_argument("--open", action="store_true", help="show it in the browser")
    command.add_argument("--space", type=Path, metavar="FOLDER", help="write a Space there, serve nothing")
    command.set_defaults(run=_demo)

    command = add("tpu-check")
    command.add_argument("--topology", default="v5e:2x4", help="kind and shape of the slice (default: %(default)s)")
    command.add_argument("--scale", action="store_true", help="for 8 to 256 chips, at the same batch a chip")
    command.add_argument("--json", action="store_true", help="print a JSON object, with --scale a list of them")
    command.add_argument("--config-dir", metavar="DIR", help=CONFIG_DIR)
    command.add_argument("overrides", nargs="*", help="as of digits train: experiment=tpu data.batch_size=8192 ...")
    command.set_defaults(run=_tpu_check)
    return parser


def _train(options: argparse.Namespace) -> None:
    from digits.training.command import main

    main(options.overrides, program="digits train")


def _sweep(options: argparse.Namespace) -> int:
    from digits.sweep.report import report

    return 1 if report(options.folders) else 0


def _predict(options: argparse.Namespace) -> int:
    from digits.reading.predict import predict

    return 1 if predict(options.pictures, options.model, options.form, options.save) else 0


def _evaluate(options: argparse.Namespace) -> None:
    from digits.evaluation.evaluate import evaluate
    from digits.report.tables import print_robustness, print_run

    if options.ensemble and len(options.models) < 2:
        raise ConfigError("ensemble: takes two models or more; for one use digits evaluate")
    data_dir = options.data_dir or os.environ.get("DIGITS_DATA_DIR") or "~/.cache/deepdigits"
    summary = evaluate(options.models, options.data, Path(data_dir).expanduser(), options.robustness, options.save)
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    print_run(summary, what="Evaluation")
    if options.robustness:
        print_robustness(summary["robustness"])


def _export(options: argparse.Namespace) -> None:
    from digits.exchange.model_folder import export

    _refuse_surplus(options)
    export(options.model, options.target, options.half, options.format)  # a str, as a Path drops a slash at the end
    print(options.target)


def _import_keras(options: argparse.Namespace) -> None:
    from digits.exchange.keras_file import load_keras
    from digits.exchange.model_folder import save_model

    save_model(options.target, load_keras(options.source))
    print(options.target)


def _push(options: argparse.Namespace) -> None:
    from digits.exchange.hub import check_name, files_to_push, push

    _refuse_surplus(options)
    check_name(options.repository)
    if options.dry_run:
        folder, files = files_to_push(options.model)
        print("\n".join(str(folder / file) for file in files))
    else:
        print(push(options.model, options.repository, options.private))


def _refuse_surplus(options: argparse.Namespace) -> None:
    if options.surplus:
        second = options.surplus[0]
        raise ConfigError(f"{second}: one argument too many; if it is the model, name it by --model {second}")


def _demo(options: argparse.Namespace) -> None:
    if options.space:
        if options.host or options.port is not None or options.open:
            raise ConfigError("--space: serves nothing, so --host, --port and --open do not go with it")
        from digits.demo.space import write_space

        write_space(options.space, options.model)
        print(f"hf upload OWNER/NAME {shlex.quote(str(options.space))} . --repo-type space")
    else:
        from digits.demo import serve

        port = 7860 if options.port is None else options.port  # Gradio's own
        serve(options.host or ["127.0.0.1"], port, options.model, options.open)


def _tpu_check(options: argparse.Namespace) -> None:
    from digits.report.tables import print_tpu_check
    from digits.settings.command_line import configure
    from digits.training.tpu_check import tpu_check

    config = configure(options.overrides)
    checks = tpu_check(config, options.topology, options.scale, lambda line: print(line, file=sys.stderr))
    if options.json:
        print(json.dumps(checks if options.scale else checks[0], indent=2))
    else:
        print_tpu_check(checks)


def run() -> None:
    """The program `digits`: :func:`main`, and out.

    After `digits predict` at once: to be taken down, torch's libraries would be read into another 130 MB of memory.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  # as long as the program
    predicting = sys.argv[1:2] == ["predict"]
    status = main()
    if predicting:
        with contextlib.suppress(OSError):  # a pipe that was closed
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
