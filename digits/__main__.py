"""The command line: `digits COMMAND`, or `python -m digits COMMAND`."""

import argparse
import json
import sys

from digits.errors import DigitsError

TPU_CHECK = """\
Compile the train step and the test step for a TPU, on a machine without one, by the TPU's own compiler, and say what
it says of them. Cycles, images a second and shares are that compiler's estimates; nothing is run on a TPU.
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse ``arguments``, call what they name, and return the exit status."""
    parser = argparse.ArgumentParser(prog="digits", description="DeepDigits reads handwritten digits.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser(
        "tpu-check", help="compile the steps for a TPU that is not there", description=TPU_CHECK
    )
    command.add_argument("--topology", default="v5e:2x4", help="kind and shape of the slice (default: %(default)s)")
    command.add_argument("--scale", action="store_true", help="for 8 to 256 chips, at the same batch a chip")
    command.add_argument("--json", action="store_true", help="print a JSON object, with --scale a list of them")
    command.add_argument("overrides", nargs="*", help="as for train.py: experiment=tpu data.batch_size=8192 ...")
    command.set_defaults(run=_tpu_check)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except DigitsError as error:
        print(f"digits: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("digits: interrupted", file=sys.stderr)
        return 130
    return 0


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
