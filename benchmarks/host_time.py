"""What a training step costs the host of an XLA device: step by step, and with 50 steps in one program.

    python benchmarks/host_time.py [--json] [OVERRIDES]

The default recipe under the project's own Trainer on two virtual devices of the CPU, 8 images a step, as the host's
time does not depend on it. The clock starts when the devices are idle and runs until the sending has returned; the
median of ten programs. With other overrides another recipe.
"""

import argparse
import json
import os
import subprocess
import sys

from digits.settings.command_line import configure

STEPS = 50


def main() -> None:
    """Measure, and print a line or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    config = configure([*options.overrides, f"steps_per_execution={STEPS}", "trainer.accelerator=tpu"])
    result = subprocess.run(
        [sys.executable, "-m", "digits.training.host_time"],
        env=os.environ | {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "2"},
        input=config.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    by_steps = json.loads(result.stdout.splitlines()[-1])
    single, many = by_steps["1"], by_steps[str(STEPS)]
    if options.json:
        print(json.dumps({"k1_ms": round(single, 3), f"k{STEPS}_ms": round(many, 3)}))
    else:
        print(f"host time of a step: {single:.2f} ms step by step, {many:.3f} ms with {STEPS} steps in a program")


if __name__ == "__main__":
    main()
