"""Splits, files and functions of datasets, and refused data."""

import sys

import numpy as np
import pytest

from spear_deploy import data
from spear_deploy.data import Dataset, Split, load_data
from spear_deploy.errors import DataError, FileError


def samples(n=40, steps=3, shape=(2,), classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n, steps, *shape)) < 0.4).astype(np.uint8), np.arange(n) % classes


def saved(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


# ---------------------------------------------------------------------------------------------------------- digits


def test_digits_are_split_by_class_and_share_no_sample():
    pytest.importorskip("sklearn")
    result = load_data("digits")
    assert (len(result.test), result.steps, result.input_shape, result.classes, result.kind) == (360, 8, (1, 8, 8), 10, "spikes")
    assert len(result.train) + len(result.val) + len(result.test) == 1797
    for split in (result.train, result.val, result.test):
        share = np.bincount(split.y) / len(split)
        assert np.abs(share - 0.1).max() < 0.012
        assert split.x.dtype == np.uint8 and not split.x.flags.writeable
    rows = [{sample.tobytes() for sample in split.x} for split in (result.train, result.val, result.test)]
    assert len(rows[0] | rows[1] | rows[2]) == len(rows[0]) + len(rows[1]) + len(rows[2])


def test_the_test_split_is_the_same_for_every_seed_and_validation_is_not():
    pytest.importorskip("sklearn")
    a, b, again = load_data("digits", seed=0), load_data("digits", seed=1), load_data("digits", seed=0)
    np.testing.assert_array_equal(a.test.x, b.test.x)
    assert not np.array_equal(a.val.x, b.val.x)
    np.testing.assert_array_equal(a.val.x, again.val.x)
    np.testing.assert_array_equal(a.train.y, again.train.y)


def test_samples_without_a_split_carry_a_note_that_the_network_may_know_the_test_samples(tmp_path):
    pytest.importorskip("sklearn")
    x, y = samples()
    (note,) = load_data(saved(tmp_path, x=x, y=y)).notes
    assert note.startswith("the data have no test split of their own: 8 of the 40 samples were drawn as one; ")
    words = np.array(["train"] * 30 + ["test"] * 10)
    assert load_data(saved(tmp_path, x=x, y=y, split=words)).notes == []
    assert load_data(saved(tmp_path, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])).notes == []
    assert load_data("digits").notes == []  # the network that is included was trained without its test split


@pytest.mark.parametrize("steps", [1, 4, 8, 11])
def test_rate_code_sends_as_many_spikes_as_the_intensity_says(steps):
    x = np.random.default_rng(steps).random((5, 2, 3))
    spikes = data.rate_code(x, steps)
    assert spikes.shape == (5, steps, 2, 3) and set(np.unique(spikes)) <= {0, 1}
    np.testing.assert_array_equal(spikes.sum(axis=1), np.floor(steps * x + 0.5))


def test_intensities_that_an_encoding_does_not_take_are_named_by_data_and_key(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.linspace(-0.5, 0.5, 80).reshape(20, 4), y=np.arange(20) % 2)
    with pytest.raises(DataError, match=r"data 'd.npz', 'x': intensities: -0.5..0.5 given, a rate code takes 0..1; rescale"):
        load_data(tmp_path / "d.npz", encoding="rate", steps=4)


def test_rate_code_refuses_intensities_beyond_1():
    with pytest.raises(DataError, match=r"0\.5\.\.1\.5 given, a rate code takes 0\.\.1"):
        data.rate_code(np.array([[0.5, 1.5]]), 4)


# ----------------------------------------------------------------------------------------------------------- files


def test_file_with_a_time_axis_holds_spikes(tmp_path):
    x, y = samples()
    result = load_data(saved(tmp_path, x=x, y=y), input_shape=(2,))
    assert result.kind == "spikes" and result.steps == 3 and result.input_shape == (2,) and result.classes == 4
    assert len(result.train) + len(result.val) + len(result.test) == 40 and len(result.test) == 8


def test_file_without_a_time_axis_is_repeated_as_current(tmp_path):
    x, y = samples(shape=(2, 4))
    result = load_data(saved(tmp_path, x=x, y=y), steps=5, input_shape=(3, 2, 4))
    assert result.kind == "current" and result.steps == 5 and result.input_shape == (3, 2, 4)
    assert (result.val.x == result.val.x[:, :1]).all()


def test_network_decides_what_the_axes_mean(tmp_path):
    x, y = samples(shape=(2, 4))
    path = saved(tmp_path, x=x, y=y)
    assert load_data(path, input_shape=(2, 4)).steps == 3
    assert load_data(path).input_shape == (2, 4)
    with pytest.raises(DataError, match=r"'x' has shape \(40, 3, 2, 4\), the network takes \(N, T, 7\) or \(N, 7\)"):
        load_data(path, input_shape=(7,))


def test_analogue_values_are_a_current_and_kind_can_be_set(tmp_path):
    x, y = samples()
    assert load_data(saved(tmp_path, x=x * 0.5, y=y)).kind == "current"
    assert load_data(saved(tmp_path, x=x, y=y, kind="current")).kind == "current"
    with pytest.raises(DataError, match="spikes are whole numbers from 0"):
        load_data(saved(tmp_path, x=x * 0.5, y=y, kind="spikes"))
    with pytest.raises(DataError, match="kind 'volts' given"):
        load_data(saved(tmp_path, x=x, y=y, kind="volts"))


def test_own_splits_are_taken(tmp_path):
    x, y = samples()
    marks = np.array(["train"] * 20 + ["val"] * 8 + ["test"] * 12)
    result = load_data(saved(tmp_path, x=x, y=y, split=marks))
    np.testing.assert_array_equal(result.val.x, x[20:28])
    result = load_data(saved(tmp_path, x_train=x[:28], y_train=y[:28], x_test=x[28:], y_test=y[28:]))
    np.testing.assert_array_equal(result.test.y, y[28:])
    assert len(result.train) + len(result.val) == 28 and len(result.val) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, r"there is no 'y', only 'x'"),
        ({"x": None}, r"there is no 'x', only 'y'"),
        ({"y": np.arange(39)}, "40 samples in x but 39 labels in y"),
        ({"y": np.arange(40) - 1}, "label -1 is negative"),
        ({"y": np.arange(40) / 2}, "labels are floating-point numbers, expected whole numbers from 0; number the classes, since"),
        (
            {"y": np.zeros((40, 2), int)},
            r"labels have shape \(40, 2\), expected \(N,\), .* or \(N, 3\), one at each step; give one-hot",
        ),
        ({"y": np.zeros(40, int)}, "holds one class only"),
        ({"y": np.full(40, 10**9)}, "label 1000000000 is out of range"),
        ({"x": np.full((40, 3, 2), np.nan)}, "x holds NaN or infinite values"),
        ({"x": np.full((40, 3, 2), 1e30), "kind": "spikes"}, r"1e\+30 spikes at one step, at most 4294967295"),
        ({"x": np.array([["a"] * 2] * 40)}, "'x' holds text, expected numbers"),
        ({"x": np.zeros(40)}, r"'x' has shape \(40,\)"),
        ({"x": np.zeros((40, 3, 0))}, r"x has shape \(27, 3, 0\), expected"),
        ({"split": np.arange(40)}, "'split' is one of the words train, val, test"),
        ({"split": np.array(["train"] * 40)}, "test split: there is none"),
        ({"split": np.array(["test"] * 40)}, "train split: there is none"),
    ],
)
def test_unusable_arrays_are_refused_with_the_reason(tmp_path, change, message):
    x, y = samples()
    arrays = {name: value for name, value in ({"x": x, "y": y} | change).items() if value is not None}
    with pytest.raises(DataError, match=message):
        load_data(saved(tmp_path, **arrays))


def test_too_few_samples_to_split(tmp_path):
    x, y = samples(2)
    with pytest.raises(DataError, match="2 samples cannot be split into two parts, of which one has .*%; give more"):
        load_data(saved(tmp_path, x=x, y=y))


def test_train_and_test_must_have_the_same_axes(tmp_path):
    x, y = samples()
    with pytest.raises(DataError, match="x_train, x_test differ in their axes"):
        load_data(saved(tmp_path, x_train=x, y_train=y, x_test=x[:, 0], y_test=y))


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([{"a": 1}, None], dtype=object), y=np.arange(2))
    with pytest.raises(FileError, match=r"cannot be read as \.npz of plain arrays \(Object arrays cannot be loaded"):
        load_data(path)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileError, "there is no such file of arrays"),
        (b"", FileError, "is empty, expected a file of arrays"),
        (b"x,y\n1,2\n", FileError, r"cannot be read as \.npz of plain arrays"),
    ],
)
def test_missing_empty_and_foreign_files(tmp_path, content, error, message):
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        load_data(path)


def test_truncated_file(tmp_path):
    path = saved(tmp_path, x=samples()[0], y=samples()[1])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FileError, match=r"cannot be read as \.npz of plain arrays"):
        load_data(path)


# ------------------------------------------------------------------------------------------------------- functions


def test_function_by_name(tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(
        "import numpy as np\n"
        "def pair():\n    return np.ones((20, 3, 2), np.uint8), np.arange(20) % 2\n"
        "def mapping():\n    return {'x': np.ones((20, 2)), 'y': np.arange(20) % 2}\n"
        "def wrong():\n    return 3\n"
        "def fails():\n    raise KeyError('frames')\n"
        "def ends():\n    raise SystemExit(0)\n"
        "def long():\n    raise ValueError('a\\nb')\n"
        "value = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_data("own_data:pair").kind == "spikes"
    assert load_data("own_data:mapping", steps=6).steps == 6
    with pytest.raises(DataError, match="the function returned int, expected a Dataset"):
        load_data("own_data:wrong")
    with pytest.raises(
        DataError, match="data 'own_data:fails': the function fails with KeyError: 'frames'; it takes no argument"
    ):
        load_data("own_data:fails")
    with pytest.raises(DataError, match="'own_data' has no function 'mappin'; did you mean 'mapping'"):
        load_data("own_data:mappin")
    with pytest.raises(DataError, match="cannot import 'no_such_module_here'"):
        load_data("no_such_module_here:f")
    (tmp_path / "wrong_syntax.py").write_text("def f(:\n")
    (tmp_path / "ends_itself.py").write_text("import sys\nsys.exit(3)\n")
    for name, message in (
        ("own_data:ends", "the function fails with SystemExit: 0; it takes no argument$"),
        ("own_data:long", "the function fails with ValueError: a; it takes no argument$"),
        ("own_data:value", "'value' is int, expected a function without arguments$"),
        ("wrong_syntax:f", r"'wrong_syntax' fails on import with SyntaxError: invalid syntax .*; correct the module$"),
        ("ends_itself:f", "'ends_itself' fails on import with SystemExit: 3; correct the module$"),
        ("own_data:", "data 'own_data:': expected package.module:function, such as my_data:load$"),
    ):
        with pytest.raises(DataError, match=message):
            load_data(name)
    assert sys.path == before


def test_unknown_name_and_steps():
    with pytest.raises(DataError, match="data '': the name is empty, expected one of digits, a file, a folder or a function"):
        load_data("")
    with pytest.raises(DataError, match="data 'digit': expected one of digits, .*; did you mean 'digits'"):
        load_data("digit")
    with pytest.raises(DataError, match="steps: 0 given"):
        load_data("digits", steps=0)


# --------------------------------------------------------------------------------------------------------- dataset


def dataset(**changes):
    x, y = samples()
    parts = {"train": Split(x=x[:20], y=y[:20]), "val": Split(x=x[20:30], y=y[20:30]), "test": Split(x=x[30:], y=y[30:])}
    return Dataset(**({"name": "toy", "classes": 4} | parts | changes))


def test_dataset_refuses_splits_that_do_not_match():
    x, y = samples()
    assert load_data(whole := dataset()) is whole
    with pytest.raises(DataError, match="val split: is empty"):
        dataset(val=Split(x=x[:0], y=y[:0]))
    with pytest.raises(DataError, match="val split: 3 samples but 2 labels"):
        dataset(val=Split(x=x[:3], y=y[:2]))
    with pytest.raises(DataError, match=r"test split: x is \(N, 2 x 2\), that of train \(N, 3 x 2\)"):
        dataset(test=Split(x=x[:, :2], y=y))
    with pytest.raises(DataError, match=r"label 3 is out of range, 3 classes are numbered 0\.\.2"):
        dataset(classes=3)
    with pytest.raises(DataError, match="test split: holds current, that of train spikes"):
        dataset(test=Split(x=x, y=y, kind="current"))
    with pytest.raises(DataError, match="x holds text, expected numbers"):
        dataset(test=Split(x=np.full((3, 3, 2), "a"), y=y[:3]))


def test_dataset_refuses_a_network_of_another_input_or_too_few_outputs():
    dataset().check((2,), 4)
    with pytest.raises(DataError, match="samples are 2 a step, the network takes 5"):
        dataset().check((5,))
    with pytest.raises(DataError, match=r"labels go up to 3, the network has outputs 0\.\.2"):
        dataset().check((2,), 3)


def test_an_encoding_of_samples_with_time_steps_is_refused(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "timed.npz", x=rng.random((40, 3, 4)), y=np.arange(40) % 4)
    with pytest.raises(DataError, match="data 'timed.npz': the samples have time steps of their own, encoding 'rate'; leave the"):
        load_data(tmp_path / "timed.npz", encoding="rate", input_shape=(4,))
    images = load_data(tmp_path / "timed.npz", encoding="rate", steps=5)  # of an unknown shape, they are images of 3 x 4
    assert images.test.x.shape[1:] == (5, 3, 4) and images.kind == "spikes"
    (tmp_path / "ready_data.py").write_text("from spear_deploy.data import digits\ndef load():\n    return digits(steps=2)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="data 'ready_data:load': a Dataset has its own encoding, 'rate' given; leave the option"):
        load_data("ready_data:load", encoding="rate")


def test_a_network_may_have_more_outputs_than_the_data_have_classes():
    dataset().check((2,))
    dataset().check((2,), 5)


def test_samples_have_an_axis_of_time_and_one_of_the_input():
    y = np.arange(6) % 2
    parts = {"classes": 2, "val": Split(x=np.ones((6, 3, 2), np.uint8), y=y), "test": Split(x=np.ones((6, 3, 2), np.uint8), y=y)}
    assert dataset(**parts, train=Split(x=np.ones((6, 3, 2), np.uint8), y=y)).steps == 3
    for shape in ((6, 3), (6, 0, 2)):
        with pytest.raises(DataError, match=rf"train split: x has shape \({shape[0]}, {shape[1]}.*expected \(N, T, \*input\)"):
            dataset(**parts, train=Split(x=np.ones(shape, np.uint8), y=y))


def test_labels_go_up_to_the_largest_number_of_classes():
    x, most = np.ones((2, 3, 2), np.uint8), data.labels.MAX_CLASSES
    assert most == 100_000
    parts = {which: Split(x=x, y=np.array([0, most - 1])) for which in ("train", "val", "test")}
    assert dataset(**parts, classes=most).classes == most
    with pytest.raises(DataError, match="val split: label 100000 is out of range, at most 100000 classes are possible"):
        dataset(**{**parts, "val": Split(x=x, y=np.array([0, most]))}, classes=most + 1)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([0.0, 0.0], np.uint8), ([0.0, 255.0], np.uint8), ([1.0, 256.0], np.uint32), ([0.0, 2.0**32 - 1], np.uint32),
        ([-1.0, 2.0], None), ([0.5, 2.0], None), ([0.0, 2.0**32], None),
    ],
)  # fmt: skip
def test_spikes_are_stored_as_the_smallest_unsigned_integers_that_hold_them(values, stored):
    x = np.array(values).reshape(1, 2, 1)
    if stored is None:
        with pytest.raises(DataError, match=r"d: spikes are whole numbers from 0|d: holds 4\.29497e\+09 spikes at one step"):
            data.dataset.check_values(x, "spikes", "d")
        return
    kept = data.dataset.check_values(x, "spikes", "d")
    assert kept.dtype == stored and np.array_equal(kept, x) and not kept.flags.writeable and x.flags.writeable
    signed = data.dataset.check_values(x.astype(np.int64), "spikes", "d")
    assert signed.dtype == stored and np.array_equal(signed, x)


def test_values_that_need_no_other_type_are_not_copied():
    for x, kind in (
        (np.ones((1, 2, 1), np.uint16), "spikes"),
        (np.ones((1, 2, 1), bool), "spikes"),
        (np.ones((1, 2, 1)), "current"),
    ):
        kept = data.dataset.check_values(x, kind, "d")
        assert kept.dtype == x.dtype and np.shares_memory(kept, x) and not kept.flags.writeable and x.flags.writeable


def test_labels_and_groups_cannot_be_written_to():
    x, y = samples()
    split = dataset(
        **{which: Split(x=x, y=y, group=np.arange(40) + at) for which, at in (("train", 0), ("val", 40), ("test", 80))}
    ).val
    assert not split.y.flags.writeable and not split.group.flags.writeable and y.flags.writeable


def test_a_dataset_made_by_hand_has_no_notes_and_is_the_one_that_the_network_was_trained_on():
    plain = dataset()
    assert plain.notes == [] and plain.trained is plain
    assert dataset(full=plain).trained is plain


def test_the_draw_of_a_split_is_the_same_in_each_release():
    """A network that was trained on one must not meet its training samples as test samples of another."""
    y, later = np.arange(24) % 3, np.array([0, 0, 1, 0, 2, 1, 1, 2, 0, 2, 1, 0, 0, 2, 2, 1, 0, 0, 1, 2, 2, 1, 1, 0])
    group = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 5, 5, 5, 6, 7, 7, 8, 8, 8, 9, 9, 9])
    x = np.arange(24, dtype=np.uint8).reshape(24, 1, 1)

    def draw(split, **options):
        drawn = data.dataset.split_at_random(split, name="d", **options)
        assert drawn.classes == 3 and drawn.drew_test
        return [part.x[:, 0, 0].tolist() for part in (drawn.train, drawn.val, drawn.test)]

    assert draw(Split(x=x, y=y)) == [
        [0, 3, 13, 17, 19, 23, 9, 11, 7, 16, 22, 18, 5, 8, 4, 21], [15, 20, 1], [6, 10, 12, 2, 14],
    ]  # fmt: skip
    assert draw(Split(x=x, y=y), seed=1, test_samples=9) == [
        [21, 0, 22, 13, 5, 3, 4, 16, 8, 18, 17, 19, 23], [11, 15], [6, 10, 7, 1, 14, 12, 9, 20, 2],
    ]  # fmt: skip
    assert draw(Split(x=x, y=later, group=group)) == [
        [6, 21, 8, 23, 5, 9, 7, 22, 0, 13, 14, 2, 1, 12], [17, 20, 18, 19, 16], [11, 10, 3, 4, 15],
    ]  # fmt: skip


def test_batches_are_time_first_and_hold_every_sample_once():
    split = dataset().train
    seen = list(split.batches(8, np.random.default_rng(0)))
    assert [x.shape for x, _ in seen] == [(3, 8, 2), (3, 8, 2), (3, 4, 2)]
    assert sorted(np.concatenate([y for _, y in seen])) == sorted(split.y)
    first_x, first_y = next(split.batches(5))
    np.testing.assert_array_equal(first_x, np.moveaxis(split.x[:5], 0, 1))
    np.testing.assert_array_equal(first_y, split.y[:5])


# ---------------------------------------------------------------------------------------------------------- groups


def recordings(groups=20, windows=6):
    """Windows of recordings: samples, labels 0..3, and the recording of each."""
    x, y = samples(groups * windows)
    return x, y, np.repeat(np.arange(groups), windows)


@pytest.mark.parametrize("form", ["npz", "words", "parts", "function", "mapping"])
def test_no_recording_lies_in_two_splits(tmp_path, monkeypatch, form):
    x, y, group = recordings()
    words = np.array([f"patient {index}" for index in group])
    test = group >= 15
    if form == "npz":
        result = load_data(saved(tmp_path, x=x, y=y, group=group))
    elif form == "words":
        split = np.where(test, "test", "train")
        result = load_data(saved(tmp_path, x=x, y=y, group=words, split=split))
    elif form == "parts":
        arrays = {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
        result = load_data(saved(tmp_path, **arrays, group_train=group[~test], group_test=group[test]))
    else:
        path = saved(tmp_path, x=x, y=y, group=group)
        value = "(a['x'], a['y'], a['group'])" if form == "function" else "dict(a)"
        (tmp_path / "windows_of.py").write_text(
            f"import numpy as np\ndef load():\n    a = np.load({str(path)!r})\n    return {value}\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "windows_of", raising=False)
        result = load_data("windows_of:load")
    parts = [set(split.group.tolist()) for split in (result.train, result.val, result.test)]
    assert sum(map(len, parts)) == 20 and len(set.union(*parts)) == 20
    assert sum(len(split) for split in (result.train, result.val, result.test)) == 120
    assert len(result.test) == (30 if form in ("words", "parts") else 24)
    for split in (result.train, result.val, result.test):  # each sample has kept its recording
        for sample, label, name in zip(split.x, split.y, split.group, strict=True):
            index = name.removeprefix("patient ") if form == "words" else name
            of = group == int(index)
            assert any(np.array_equal(sample, row) and label == other for row, other in zip(x[of], y[of], strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_whole_groups_bring_the_classes_near_their_share(seed):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(60), rng.integers(1, 30, 60))
    y = np.where(rng.random(len(group)) < 0.5, group % 4, rng.integers(0, 4, len(group)))  # a recording has a favourite
    rest, drawn = data.dataset.split_groups(y, group, 0.2, rng, "d")
    assert sorted([*rest, *drawn]) == list(range(len(y))) and not set(group[rest]) & set(group[drawn])
    shares = np.bincount(y[drawn], minlength=4) / np.bincount(y, minlength=4)
    assert np.abs(shares - 0.2).max() < 0.06


def test_few_and_large_groups_leave_samples_in_both_parts():
    y = np.arange(40) % 2
    for sizes, share in (([20, 20], 0.15), ([39, 1], 0.2), ([1, 39], 0.9), ([10, 10, 20], 0.01)):
        rest, drawn = data.dataset.split_groups(y, np.repeat(np.arange(len(sizes)), sizes), share, np.random.default_rng(0), "d")
        assert len(rest) and len(drawn) and len(rest) + len(drawn) == 40


@pytest.mark.parametrize(
    ("share", "sizes", "labels", "rest", "drawn"),
    [  # class 3 has one sample; all groups are drawn at first, and the one comes back whose classes are then the nearest
        (0.9, [4, 4, 4], [3, 0, 2, 1, 0, 2, 1, 2, 1, 0, 2, 1], [7, 6, 5, 4], [9, 2, 8, 11, 1, 0, 3, 10]),
        # a group whose part makes no difference stays where it is
        (0.5, [4, 4, 3], [1, 1, 1, 0, 0, 2, 1, 3, 0, 3, 1], [4, 6, 2, 7, 3, 5, 1, 0], [8, 10, 9]),
    ],
)
def test_groups_are_drawn_by_the_distance_of_their_classes_from_the_share(share, sizes, labels, rest, drawn):
    group = np.repeat(np.arange(len(sizes)), sizes)
    parts = data.dataset.split_groups(np.array(labels), group, share, np.random.default_rng(0), "d")
    assert [part.tolist() for part in parts] == [rest, drawn]


def test_a_part_may_have_a_single_sample():
    rest, drawn = data.dataset.split_stratified(np.arange(5) % 2, 0.2, np.random.default_rng(0), "d")
    assert len(rest) == 4 and len(drawn) == 1


def test_samples_of_a_shape_that_is_no_other_view_of_the_input_stay_as_they_are():
    """So that the refusal names both shapes."""
    whole = dataset()
    assert data.dataset.reshape_samples(whole, (5,)) is whole is data.dataset.reshape_samples(whole, (2,))
    assert data.dataset.reshape_samples(whole, (2, 1)).input_shape == (2, 1)


def test_groups_do_not_move_a_sample_of_data_without_them_nor_their_digest(tmp_path):
    x, y, group = recordings()
    plain, grouped = (load_data(saved(tmp_path, x=x, y=y, **more)) for more in ({}, {"group": group}))
    assert plain.train.group is plain.val.group is plain.test.group is None
    split = np.array(["train"] * 60 + ["val"] * 30 + ["test"] * 30)
    own, both = (load_data(saved(tmp_path, x=x, y=y, split=split, **more)) for more in ({}, {"group": group}))
    assert data.dataset.hash_dataset(plain) != data.dataset.hash_dataset(grouped)
    assert data.dataset.hash_dataset(own) != data.dataset.hash_dataset(both)
    larger = load_data(saved(tmp_path, x=x, y=y, split=split, group=group // 5))
    assert data.dataset.hash_dataset(larger) != data.dataset.hash_dataset(both)
    words = load_data(saved(tmp_path, x=x, y=y, split=split, group=[f"{index:02}" for index in group]))
    assert data.dataset.hash_dataset(words) == data.dataset.hash_dataset(both)  # a digest of what is alike, whatever its name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": np.arange(119)}, r"data 'data.npz', 'group': groups have shape \(119,\), expected \(120,\); give one group a"),
        ({"group": np.arange(240)}, r"groups have shape \(240,\), expected \(120,\)"),  # more groups than samples
        ({"group": np.zeros((120, 2), int)}, r"groups have shape \(120, 2\), expected \(120,\)"),
        ({"group": np.arange(120) / 6}, "groups are floating-point numbers, expected whole numbers or words; number the rec"),
        ({"group": np.full(120, np.nan)}, "groups are floating-point numbers, expected whole numbers or words"),
        ({"group": np.zeros(120, int)}, "120 samples of 1 group cannot be split into two parts, since a group belongs to one"),
        ({"group": np.arange(120) % 2}, "60 samples of 1 group cannot be split into two parts"),
        ({"group": np.arange(120) % 7, "split": np.array(["train", "val", "test"] * 40)}, "group 0 lies in the train and the"),
        ({"group_train": np.arange(120)}, "there is 'group_train', but no samples of it; expected group"),
    ],
)
def test_unusable_groups_are_refused_with_the_reason(tmp_path, change, message):
    x, y, _ = recordings()
    with pytest.raises(DataError, match=message):
        load_data(saved(tmp_path, x=x, y=y, **change))


def test_groups_of_one_split_alone_are_refused(tmp_path):
    x, y, group = recordings()
    arrays = {"x_train": x[:90], "y_train": y[:90], "x_test": x[90:], "y_test": y[90:]}
    with pytest.raises(DataError, match="the test split has no groups, the train split has; give the group of each sample in"):
        load_data(saved(tmp_path, **arrays, group_train=group[:90]))
    with pytest.raises(DataError, match="the train split has no groups, the test split has"):
        load_data(saved(tmp_path, **arrays, group_test=group[90:]))
    with pytest.raises(DataError, match="there is 'group', but no samples of it; expected group_train, group_test"):
        load_data(saved(tmp_path, **arrays, group=group))
    with pytest.raises(DataError, match=r"val split: groups have shape \(3,\), expected \(10,\)"):
        dataset(val=Split(x=x[:10], y=y[:10], group=group[:3]))
