"""Whatever numpy writes comes back; whatever could run code or forge memory does not come in."""

import collections
import datetime
import fractions
import os
import pathlib
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from data.safe_pickle import load_npz, load_pickle, parse
from lib.errors import UserError
from lib.files import PROJECT_ROOT
from tests.mistakes import Call

VALUES = {
    "float": np.arange(24.0).reshape(2, 3, 4),
    "float32": np.linspace(0, 1, 5, dtype=np.float32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    "big endian": np.arange(3, dtype=">i4"),
    "bool": np.array([True, False]),
    "names": np.array(["Walking", "Sitting", "π"]),
    "bytes": np.array([b"ab", b"c"]),
    "objects": np.array(["a", None, [1, 2]], dtype=object),
    "empty": np.empty((0, 17, 3)),
    "no axes": np.array(2.5),
    "scalar": np.float64(1.25),
    "scalar32": np.float32(1.25),
    "integer": np.int64(-3),
    "plain": {"a": [1, 2.5, "x", b"y", None, True], "b": (1, {2: 3}, ())},
}


def dump(tmp_path, value, protocol=4):
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", VALUES)
def test_arrays_and_containers_come_back(tmp_path, name, protocol):
    value = VALUES[name]
    found = load_pickle(dump(tmp_path, value, protocol))
    if isinstance(value, np.ndarray | np.generic):
        assert np.asarray(found).dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
        assert np.asarray(found).shape == value.shape
        assert np.array_equal(found, value)
    else:
        assert found == value


@pytest.mark.parametrize("protocol", range(6))
def test_dictionaries_of_other_classes_come_back_as_plain_ones(tmp_path, protocol):
    value = collections.defaultdict(list, a=collections.OrderedDict([("b", 1), ("c", {2, 3})]))
    found = load_pickle(dump(tmp_path, value, protocol))
    assert found == {"a": {"b": 1, "c": {2, 3}}}
    assert type(found) is type(found["a"]) is dict and list(found["a"]) == ["b", "c"]


HARMLESS = (
    datetime.date(2025, 1, 2),
    pathlib.PurePosixPath("a"),
    collections.Counter("aab"),
    fractions.Fraction(1, 3),
    np.ma.masked_array([1.0, 2.0], [True, False]),
    torch.ones(2),
)


def test_results_of_other_programs_are_named_and_called_no_attack():
    with pytest.raises(UserError, match="holds a ultralytics"):
        parse(b"\x80\x04cultralytics.engine.results\nResults\n)\x81.", "a.pkl")


@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: type(value).__name__)
def test_harmless_classes_are_named_but_no_attack(tmp_path, value):
    with pytest.raises(UserError, match="only arrays and plain containers are read") as caught:
        load_pickle(dump(tmp_path, {"train": value}))
    assert type(value).__module__.partition(".")[0] in str(caught.value)
    assert "code" not in str(caught.value)


def test_code_is_refused_and_not_run(tmp_path):
    witness = tmp_path / "witness"
    for call in (
        Call(os.system, f"touch {witness}"),
        Call(eval, f"open({str(witness)!r}, 'w')"),
        Call(exec, f"open({str(witness)!r}, 'w')"),
        Call(open, str(witness), "w"),
        Call(os.mkdir, str(witness)),
        Call(subprocess.Popen, ["touch", str(witness)]),
        Call(getattr, "text", "encode"),
        Call(np.save, str(witness), np.zeros(2)),
        Call(np.load, str(witness)),
    ):
        for value in (call, {"train": {"joint_2d": [call]}}):
            with pytest.raises(UserError, match="refused, it would run code") as caught:
                load_pickle(dump(tmp_path, value))
            assert "\n" not in str(caught.value)
            assert not witness.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # protocol 0
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x02cnumpy._core.multiarray\nfromfile\n)R.",
        b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.",  # a dotted way further in
        b"\x80\x04\x8c\x05numpy\x8c\x11f2py.compile.exec\x93.",
        b"(i__builtin__\nglobals\n.",  # INST
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x04\x8c\x03o\ns\x8c\x06system\x93.",  # a name of two lines
    ],
)
def test_hand_made_streams_are_refused(tmp_path, stream):
    path = tmp_path / "file.pkl"
    path.write_bytes(stream)
    with pytest.raises(UserError, match=r"refused|damaged") as caught:
        load_pickle(path)
    assert "\n" not in str(caught.value)


def forged(text, state, raw=b"A" * 64, shape=(8,)):
    dtype = Call(np.dtype, text, False, True, state=state)
    rebuild = np.zeros(1).__reduce__()[0]
    return Call(rebuild, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, raw))


FORGED = {
    "pointers": ("O8", (3, "|", None, None, None, 8, 8, 0)),
    "pointers in records": ("V8", (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0)),
    "flags of pointers": ("f8", (3, "<", None, None, None, -1, -1, 63)),
    "negative size": ("U1", (3, "<", None, None, None, -4, 4, 8)),
    "odd size": ("U1", (3, "<", None, None, None, 3, 4, 8)),
}


@pytest.mark.parametrize("name", FORGED)
def test_arrays_forged_to_hold_pointers(tmp_path, name):
    """Read in a process of its own: believing such a file means a crash, or worse."""
    path = dump(tmp_path, forged(*FORGED[name]))
    code = (
        "import sys, numpy as np\n"
        "from data.safe_pickle import load_npz, load_pickle\n"
        "from lib.errors import UserError\n"
        "try: array = np.asarray(load_pickle(sys.argv[1]))\n"
        "except UserError: sys.exit(7)\n"
        "assert array.dtype == np.dtype('f8'), array.dtype\n"
        "print(array.tolist())\n"
        "del array\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    # The forged flags are not believed, so that this one is an array of eight numbers.
    expected = 0 if name == "flags of pointers" else 7
    assert run.returncode == expected, run.stderr
    assert run.stderr == ""


@pytest.mark.parametrize(
    "value",
    [
        Call(np.ndarray, (10**9,)),
        Call(np.zeros(1).__reduce__()[0], np.ndarray, (10**12,), b"b"),
        Call(np.dtype, [("a", "O")]),
        forged("f8", (3, "<", None, None, None, -1, -1, 0), shape=(10**12,)),
        forged("O8", (3, "|", None, None, None, -1, -1, 63), raw=[1], shape=(10**6,)),
    ],
    ids=["ndarray", "size", "record", "shape", "objects"],
)
def test_forged_sizes_are_refused(tmp_path, value):
    path = dump(tmp_path, value)
    try:
        found = load_pickle(path)
    except UserError:
        return
    assert np.asarray(found).size == 0  # the size asked for was not believed


def test_every_truncation_is_one_clear_error(tmp_path):
    value = {"train": {"joint_2d": np.zeros((3, 17, 2)), "source": ["a", "b", "c"]}}
    whole = dump(tmp_path, value).read_bytes()
    path = tmp_path / "cut.pkl"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"{path}: damaged or not a pickle") as caught:
            load_pickle(path, "copy it again")
        assert str(caught.value).endswith("; copy it again")


def test_random_damage_gives_a_value_or_a_user_error(tmp_path):
    random.seed(0)
    whole = dump(tmp_path, {"a": np.arange(6.0), "b": ["x"] * 3, "c": np.float32(2)}).read_bytes()
    path = tmp_path / "bad.pkl"
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            load_pickle(path)
        except UserError:
            refused += 1
    assert refused > 100


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(UserError, match="cannot be read"):
        load_pickle(tmp_path)


@pytest.mark.parametrize("name", VALUES)
def test_an_npz_gives_what_numpy_put_into_it(tmp_path, name):
    """Plain arrays, object arrays, and containers, which numpy stores as objects without axes."""
    value = VALUES[name]
    np.savez_compressed(tmp_path / "file.npz", here=np.asarray(value), other=np.zeros(3))
    found = load_npz(tmp_path / "file.npz", ["here"], ["absent"])
    assert list(found) == ["here"]
    if isinstance(value, dict):
        assert found["here"] == value
    else:
        assert np.asarray(found["here"]).dtype == np.asarray(value).dtype
        assert np.array_equal(found["here"], value)


def test_an_npz_with_evil_objects_is_refused(tmp_path):
    witness = tmp_path / "witness"
    for call in (Call(os.mkdir, str(witness)), Call(eval, "1")):
        for value in (np.array(call, dtype=object), {"S1": {"Walking": [call]}}):
            np.savez(tmp_path / "file.npz", positions=np.array(value, dtype=object))
            with pytest.raises(UserError, match="refused, it would run code"):
                load_npz(tmp_path / "file.npz", ["positions"])
            assert not witness.exists()


def test_what_is_wrong_with_an_npz_is_told(tmp_path):
    path = tmp_path / "file.npz"
    with pytest.raises(UserError, match="cannot be read"):
        load_npz(path, ["here"])
    np.savez(path, there=np.zeros(4000), objects=np.array({"a": np.zeros(9)}, dtype=object))
    with pytest.raises(UserError, match=r"no array 'here' inside \(there: objects, there\)"):
        load_npz(path, ["here"])
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"damaged or not an \.npz of arrays; copy it again"):
            load_npz(path, ["there", "objects"], remedy="copy it again")
