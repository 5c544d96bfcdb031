"""Any command line of `python train.py` starts a run, prints what it asks for, or is refused in one line."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing import check_line, contract, inputs
from hypothesis import event, example, given
from hypothesis import strategies as st

from digits.settings.grid import GROUPS
from digits.settings.schema import Config
from digits.settings.targets import names
from digits.settings.wording import fields_of
from digits.training import command

PROGRAM = "train.py"


class Started(SystemExit):
    """Instead of a training."""


GROUP_NAMES = [*sorted(GROUPS), "hydra/sweeper", "hydra/launcher", "hydra/job_logging", "hydra/help", "hydra"]
FILES = sorted({name for group in GROUPS for name in names(group)})
KEYS = [key for key, _ in fields_of(Config)]
ODD_KEYS = """
train overfit_batches modle.l2 callbacks.0 a.b.c.d seed.x model. .model data.path hydra.mode hydra.verbose hydra.job.num
hydra.job.chdir hydra.job.name hydra.sweeper.params hydra.searchpath hydra.output_subdir hydra.launcher.n_jobs
hydra.callbacks hydra.job.env_set model@x data@_global_ logger._target_ model._target_ hydra.sweeper._target_
hydra.job_logging.root.handlers hydra.run.dir hydra.sweep.dir _target_ é
"""
WORDS = """
0 1 -1 0.5 1e400 .nan .inf 0x10 1_000 true null ??? _ x 'x' "x ' \\ a=b [] {} [1] [[1]] {a:1} {a:{b:1}} {1:2} [ { $x {x}
${seed} ${nope} ${oc.env:HOME} ${oc.env:NO_SUCH} ${oc.decode:1} ${oc.decode:'['} ${now:%Y} ${hydra:job.num} ${ ${} ${a:}
${oc.create:{a:1}} ${oc.select:x,1} ${.seed} ${..} ${data} 1,2 range(1,3) range(3,1) glob(*) range(0,1000000000) f(1)
range(1,2,1e-9) interval(0,1) choice(a,b) shuffle(1,2) sort(2,1) tag(x,1) cast(1) int(x) float(1) str(1) json_str(1)
extend_list(1) choice() range(1) int(1,2) mnist,[1] x,null [1],[2] %(x)s simple_cnn \u202e 🙂 /dev/null/x gpu grid
search
"""
VALUES = [*WORDS.split(), "", " ", "a b", "a\nb", "\x00", "\x1b[31m", "9" * 400, "x" * 30_000]
OPTIONS = """
-m|--multirun|--run|--cfg job|--cfg hydra|--cfg all|--resolve|--cfg x|--cfg|-p data|--package x|--info|--info defaults
|--info x|--help|--hydra-help|--version|-sc install=bash|-sc query=bash|--experimental-rerun x|--config-name x|-cn train
|-cp x|--config-dir x|--fast|-x|--|-
"""
FLAGS = [option.split() for option in OPTIONS.split("|")]

known_key = st.sampled_from(GROUP_NAMES) | st.sampled_from(KEYS) | st.sampled_from(ODD_KEYS.split())
key = known_key | st.text(max_size=4)
value = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(FILES),
    st.recursive(
        st.sampled_from(["1", "x", "null", "${seed}"]),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
            | st.lists(inner, max_size=2).map(
                lambda items: "{" + ",".join(f"k{n}: {i}" for n, i in enumerate(items)) + "}"
            )
        ),
        max_leaves=5,
    ),
    st.integers(1, 2000).map(lambda depth: "[" * depth + "1" + "]" * depth),
    st.integers(1, 2000).map(lambda depth: "{a: " * depth + "1" + "}" * depth),
    st.integers(1, 300).map(lambda depth: "${a." * depth + "}" * depth),
    st.text(alphabet="[]{}(),:=$'\"\\ \t._-+~@/x01", max_size=8),
    st.text(max_size=4),
)
override = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), key, value),
    st.builds("{}{}".format, st.sampled_from(["~", "+", "++", "", "@"]), key),
    st.text(alphabet="[]{}(),:=$'\"\\ \t._-+~@/x01", max_size=8),
)
command_line = st.one_of(
    override.map(lambda word: [word]),
    st.builds(lambda flag, words: [*flag, *words], st.sampled_from(FLAGS), st.lists(override, max_size=2)),
    st.builds(lambda words, flag: [*words, *flag], st.lists(override, max_size=3), st.sampled_from([[], *FLAGS])),
)


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(*_: object) -> None:
        raise Started(0)

    monkeypatch.setattr(command, "_train", start)  # a mock, as thousands of trainings are not what is tried here
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ["-m", "seed=1,2"]):  # what is imported once is no input's
        with contextlib.suppress(SystemExit), process_state_kept():
            command.main(arguments, PROGRAM)


@contextlib.contextmanager
def process_state_kept() -> Iterator[None]:
    """Hydra's log handlers and environment variables end with the command, as in a process of its own."""
    environment, handlers, level = dict(os.environ), logging.root.handlers[:], logging.root.level
    try:
        yield
    finally:
        for handler in logging.root.handlers:
            if handler not in handlers:
                handler.close()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)


def outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status of a command line, and what it said on stderr; anything but an exit is raised."""
    with process_state_kept():
        try:
            command.main(arguments, PROGRAM)
            status = 0
        except Started:
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return status, capsys.readouterr().err


def tried(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with contract():
        status, said = outcome(arguments, capsys)
    event(f"status {status}")
    assert "Traceback" not in said
    if status == 0:
        return
    assert status in (1, 2)
    lines = said.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{PROGRAM}: "), said
    check_line(lines[0])


@example(arguments=["data=[1]"])
@example(arguments=["+=x"])
@example(arguments=["model=${oc.decode:1}"])
@example(arguments=["seed=" + "[" * 300 + "1" + "]" * 300])
@example(arguments=["--cfg", "all", "-m", "seed=1,2"])
@example(arguments=["-sc", "query=bash"])
@example(arguments=["--resolve"])
@example(arguments=["hydra.launcher=1", "-m"])
@example(arguments=["hydra.run.dir=${nope}"])
@example(arguments=["--cfg", "job", "-p", "nope"])
@example(arguments=["hydra.job_logging.root.handlers=x"])
@inputs(quick=100, thorough=10_000)
@given(arguments=command_line)
def test_overrides(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    tried(arguments, capsys)
