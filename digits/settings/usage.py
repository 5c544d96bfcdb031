"""What `digits --help` and `digits COMMAND --help` say: descriptions, 80 columns wide, and examples that run."""

from typing import NamedTuple


class Usage(NamedTuple):
    """The words of a command: one for the list of all, the description, and what to try."""

    summary: str
    description: str
    examples: tuple[str, ...]

    def epilog(self) -> str:
        """The examples as the end of the help."""
        return "\n".join(["Examples:", *(f"  {example}" for example in self.examples)])


PROGRAM = Usage(
    "",
    "DeepDigits reads handwritten digits. `digits COMMAND --help` explains a command.",
    ("digits predict photo.jpg", "digits train data=mnist5k trainer.max_epochs=2", "digits demo --open"),
)
SCORED = """\
Errors and their 95 % interval, calibration and per-digit figures, on MNIST's
test split. With --data FOLDER on pictures of your own, each of one digit, in
sub-folders called 0 to 9: they are read as digits predict does, and where not
exactly one digit is found, that is an error.
"""
COMMANDS = {
    "train": Usage("train the network", "", ()),  # Hydra's command line: digits.settings.help
    "sweep": Usage(
        "say what a sweep has found",
        """\
Say what a sweep (digits train -m) has found, at any time: while it runs, after
it was stopped or killed, and when it is over. Jobs that differ by the seed
alone are one row; rows are ranked by the validation images. Several folders
are reported on together. The table is written into the first of them, with
sweep.csv, sweep.png and README.md. The exit status is 1 unless all jobs are
completed or pruned.
""",
        ("digits sweep runs/grid", "digits sweep runs/grid runs/more"),
    ),
    "predict": Usage(
        "read the digits of pictures",
        """\
Read the digits of pictures: one line a picture, with its name, the digits in
reading order, rows parted by a slash, and the confidence of the least certain
digit. A digit of less than 90 % confidence is doubtful: a ? follows it, 207?.
Without a digit in it, a picture is answered with "no digit".

On a terminal the columns are aligned, and long names lose their beginning. In
a pipe or a file a tab parts the columns, and names are whole: `cut -f2` takes
the digits, `tr -d '?'` the marks away. Colours are for terminals only, without
NO_COLOR.

PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, AVIF; HEIC with pillow-heif. Of several
pages or frames it is the first. Files that cannot be read are named on stderr,
the others are read, and the exit status is 1.
""",
        ("digits predict photo.jpg scans/ --save out", "digits predict scans/ | cut -f2 | tr -d '?'"),
    ),
    "evaluate": Usage(
        "score a model on MNIST's test split",
        f"""\
Score a model. Several models are scored together, as an ensemble: by the mean
of their probabilities. Without any, the one that the package carries.

{SCORED}""",
        ("digits evaluate runs/mine --robustness", "digits evaluate --data labelled/ --save out"),
    ),
    "ensemble": Usage(
        "score several models together",
        f"""\
Score two models or more together, by the mean of their probabilities.

{SCORED}""",
        ("digits ensemble runs/mine runs/more", "digits ensemble runs/mine runs/more --save out --json"),
    ),
    "export": Usage(
        "write a model into a folder or a file",
        """\
Write a model into a file, whose ending says the format:
  .onnx        ONNX: uint8 images in, probabilities and logits out
  .pt          torch: a dict of config and state_dict
  .keras, .h5  Keras, .h5 is the legacy format; neither has a place for the
               temperature, so the probabilities differ

Or, under a name without an ending, into a folder as the Hugging Face hub has
them: weights (safetensors), settings, card and plots. With a dot in its name,
a new folder needs a slash behind it: model.v2/.
""",
        ("digits export model.onnx", "digits export some/folder --model runs/mine --half"),
    ),
    "import-keras": Usage(
        "read a model of the original",
        """\
Read the weights of the original Keras model, without Keras or TensorFlow, and
write them into a folder as digits export does. SOURCE is what model.save or
model.save_weights wrote: .keras, .weights.h5 or the legacy .h5.
""",
        ("digits import-keras original.h5 imported", "digits import-keras original.keras imported"),
    ),
    "push": Usage(
        "upload a model to the Hugging Face hub",
        """\
Upload a model with its card and plots to the Hugging Face hub. Log in before,
with `hf auth login` or HF_TOKEN.
""",
        ("digits push owner/name --model runs/mine --dry-run", "digits push owner/name --model runs/mine --private"),
    ),
    "demo": Usage(
        "draw digits on a web page and have them read",
        """\
Serve a web page on which digits are drawn, or pictures of them dropped, and
read. It needs no network, and keeps nothing of what it is sent. With --space,
write that page as a Space for the Hugging Face hub instead.
""",
        ("digits demo --open", "digits demo --model runs/mine --space space"),
    ),
    "tpu-check": Usage(
        "compile the steps for a TPU that is not there",
        """\
Compile the training, 50 steps as one program and a single one, and the test
step for a TPU, on a machine without one, by the TPU's own compiler, and say
what it says of them. Cycles and images a second are that compiler's estimates;
nothing is run on a TPU. What a step costs the host is measured on this
machine, and with it how much of the time the chips would compute.
""",
        ("digits tpu-check experiment=tpu", "digits tpu-check --scale --json experiment=tpu"),
    ),
}
