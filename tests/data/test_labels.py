"""Labels of samples and of steps: what is read, what is refused, and what is right."""

import numpy as np
import pytest

from spear_deploy.data import Dataset, Split, from_arrays, from_torch, load_data
from spear_deploy.data.labels import average_right, check_labels, choose_strata, grade_labels
from spear_deploy.data.time_steps import list_steps
from spear_deploy.errors import DataError
from spear_deploy.network import Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pipeline.inputs import list_data_steps
from spear_deploy.pruning.tune.margins import accuracy_error

STEPS = 5


def sequences(samples=40, steps=STEPS, seed=0):
    """Return spikes of three inputs, and a label at each step or none."""
    rng = np.random.default_rng(seed)
    y = rng.integers(-1, 4, (samples, steps))
    y[:, 0] = rng.integers(0, 4, samples)
    return rng.integers(0, 2, (samples, steps, 3)).astype(np.uint8), y


def save(tmp_path, **arrays):
    np.savez(tmp_path / "d.npz", **arrays)
    return tmp_path / "d.npz"


def test_a_label_at_each_step_is_read_from_a_file_and_split_with_its_samples(tmp_path):
    x, y = sequences()
    data = load_data(save(tmp_path, x=x, y=y))
    assert data.classes == 4
    assert data.train.y.shape == (len(data.train), STEPS)
    assert repr(data.train).endswith(f"y {len(data.train)} x {STEPS} labels)")
    rows = {(a.tobytes(), b.tobytes()) for a, b in zip(x, y, strict=True)}
    for split in (data.train, data.val, data.test):
        assert {(a.tobytes(), b.tobytes()) for a, b in zip(split.x, split.y, strict=True)} <= rows
    assert any("labelled steps" in note for note in data.notes)


def test_labels_from_1_and_classes_without_a_training_sample_have_a_note_each():
    def notes(train, val=(0, 1), test=(0, 1), classes=None):
        parts = {which: Split(x=np.zeros((len(y), 2, 3), np.uint8), y=np.array(y)) for which, y in
                 {"train": train, "val": val, "test": test}.items()}  # fmt: skip
        highest = max(max(part.y) for part in parts.values())
        return Dataset(name="d", classes=classes or highest + 1, **parts).notes

    assert notes([0, 1, 2]) == []
    assert notes([1, 2, 3], (1, 2), (3, 2)) == [
        "labels are 1 to 3, read as classes 0 to 3, of which class 0 has no sample; where the first output stands for label 1, "
        "give y - 1"
    ]
    assert notes([1, 2, 4], (1, 2), (4, 2))[1] == (
        "class 3 has no training sample, so fine-tuning cannot learn it; check the labels"
    )
    assert notes([1, 2]) == [
        "class 0 has no training sample, so fine-tuning cannot learn it; check the labels"
    ]  # 0 in the others
    assert notes([0, 9]) == [
        "classes 1, 2, 3, 4, 5 and 3 more have no training sample, so fine-tuning cannot learn them; check the labels"
    ]


def test_labels_from_1_that_go_beyond_the_outputs_are_refused_with_the_remedy():
    x, y = np.zeros((40, STEPS, 3), np.uint8), 1 + np.arange(40) % 3
    data = from_arrays({"x": x, "y": y}, name="d")
    with pytest.raises(DataError, match=r"labels go up to 3, the network has outputs 0\.\.2; labels count from 0, give y - 1"):
        data.check((3,), 3)
    assert data.notes[0].startswith("labels are 1 to 3, read as classes 0 to 3")


def test_labels_of_steps_have_groups_words_and_files_of_their_own_splits_as_others(tmp_path):
    x, y = sequences()
    data = load_data(save(tmp_path, x=x, y=y, group=np.arange(40) // 4))
    assert not set(data.train.group) & set(data.test.group)
    words = np.array((["train"] * 3 + ["test"]) * 10)
    data = load_data(save(tmp_path, x=x, y=y, split=words))
    np.testing.assert_array_equal(np.sort(data.test.y, axis=0), np.sort(y[words == "test"], axis=0))
    data = load_data(save(tmp_path, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:]))
    np.testing.assert_array_equal(data.test.y, y[30:])


def test_a_torch_dataset_may_have_a_label_at_each_step():
    x, y = sequences()
    pairs = [(a.astype(np.float32), b) for a, b in zip(x, y, strict=True)]
    data = from_torch(pairs[:30], pairs[30:])
    np.testing.assert_array_equal(data.test.y, y[30:])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (lambda n, y: y[: 4 + n % 2], r"labels differ in shape, e.g. \[\(4,\), \(5,\)\]; give one a sample, or one at each"),
        (lambda n, y: np.eye(5)[n % 5], "one-hot labels as y.argmax"),
    ],
)
def test_labels_of_a_torch_dataset_that_are_neither_are_refused(label, message):
    x, y = sequences()
    pairs = [(a, label(n, b)) for n, (a, b) in enumerate(zip(x, y, strict=True))]
    with pytest.raises(DataError, match=message):
        from_torch(pairs[:30], pairs[30:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:, :3], r"labels have shape \(40, 3\), expected \(N,\), .* or \(N, 5\), one at each step"),
        (lambda y: y[..., None], r"labels have shape \(40, 5, 1\)"),
        (lambda y: np.eye(5, dtype=int)[y[:, 0]], r"give one-hot labels as y.argmax\(-1\)"),
        (lambda y: y - 1, "label -2 is negative, labels are whole numbers from 0, and -1 at a step without a label"),
        (lambda y: y / 2, "labels are floating-point numbers"),
        (lambda y: np.where(np.arange(40)[:, None] == 7, -1, y), "sample 7 has no label at any step; leave it out"),
        (lambda y: np.minimum(y, 0), "the training split holds one class only"),
        (lambda y: y[:39], "40 samples in x but 39 labels in y"),
    ],
)
def test_unusable_labels_of_steps_are_refused(tmp_path, change, message):
    x, y = sequences()
    with pytest.raises(DataError, match=message):
        load_data(save(tmp_path, x=x, y=change(y)))


@pytest.mark.parametrize("shape", [(40,), (40, 5)])
def test_samples_without_steps_or_values_are_refused_whatever_their_labels(shape):
    _, y = sequences()
    split = Split(x=np.ones(shape, np.uint8), y=y if len(shape) == 2 else y[:, 0])
    with pytest.raises(DataError, match=r"train split: x has shape \(40.*\), expected \(N, T, \*input\), none of them empty"):
        Dataset(name="d", train=split, val=split, test=split, classes=4)


def test_one_hot_labels_of_as_many_classes_as_steps_are_no_labels_of_steps():
    with pytest.raises(DataError, match="one-hot"):
        check_labels(np.eye(STEPS)[[0, 1, 4]], "d", STEPS)
    check_labels(np.eye(STEPS, dtype=int)[[0, 1, 4]] * 2, "d", STEPS)  # no one-hot label has a 2


def test_a_step_of_each_sample_with_an_event_is_told_from_one_hot_labels_by_its_number():
    x, _ = sequences()
    event = np.zeros((40, STEPS), int)
    event[:, 2] = 1
    data = {"x": x, "y": event}
    with pytest.raises(DataError, match="one 1 in each row of 5 steps, .* such as 0 where they have 1 and 1 where 0"):
        from_arrays(data, name="d")
    assert from_arrays({**data, "y": 1 - event}, name="d").train.y.shape[1] == STEPS


@pytest.mark.parametrize(
    ("key", "message"),
    [("x", "data 'd': samples of 'x' differ in length; pad or cut all to one"), ("y", "labels differ in length")],
)
def test_sequences_of_different_lengths_are_refused(key, message):
    x, y = sequences()
    arrays = {"x": x, "y": y}
    arrays[key] = [part[: 3 + n % 3] for n, part in enumerate(arrays[key])]
    with pytest.raises(DataError, match=message):
        from_arrays(arrays, name="d")


@pytest.mark.parametrize("which", ["train", "val", "test"])
def test_labels_of_samples_in_one_split_and_of_steps_in_another_are_refused(which):
    x, y = sequences()
    arrays = {f"{key}_{name}": value for name in ("train", "val", "test") for key, value in (("x", x), ("y", y))}
    with pytest.raises(DataError, match="split: has 40( x 5)? labels, that of train 40( x 5)? labels; give one a sample in all"):
        from_arrays({**arrays, f"y_{which}": y[:, 0]}, name="d")


def test_accuracy_is_the_share_of_labelled_steps():
    rng = np.random.default_rng(1)
    decided, (_, y) = rng.integers(0, 4, (40, STEPS)), sequences()
    right = total = 0
    for decision, label in zip(decided.ravel(), y.ravel(), strict=True):
        right, total = right + (decision == label), total + (label >= 0)
    assert grade_labels(decided, y).mean() == pytest.approx(right / total)
    np.testing.assert_allclose(grade_labels(np.maximum(y, 0), y).mean(), 1)


def test_a_sample_counts_by_its_labelled_steps():
    y = np.array([[1, 1, 1, 1], [1, -1, -1, -1]])
    right = grade_labels(np.array([[1, 1, 1, 0], [1, 1, 1, 1]]), y)
    np.testing.assert_allclose(right, [0.8 + (3 - 0.8 * 4) * 2 / 5, 0.8 + (1 - 0.8 * 1) * 2 / 5])


def test_equal_shares_of_steps_are_equal_accuracies_whichever_steps_are_right():
    rng, (_, y) = np.random.default_rng(3), sequences(samples=37)
    places, labelled = np.argwhere(y >= 0), int((y >= 0).sum())
    accuracies = set()
    for _ in range(50):
        decided = np.where(y >= 0, y + 1, 0)
        chosen = tuple(places[rng.permutation(labelled)[: labelled // 3]].T)
        decided[chosen] = y[chosen]
        accuracies.add(average_right(grade_labels(decided, y)))
    (accuracy,) = accuracies
    assert accuracy == pytest.approx(labelled // 3 / labelled)


@pytest.mark.parametrize("most", [8, 200])
def test_the_standard_error_of_an_accuracy_of_steps_is_its_spread_over_draws(most):
    """Samples may have few labels or many: how many is no matter of accuracy, though it sums up as if it were."""
    rng = np.random.default_rng(0)
    draws, errors = [], []
    for _ in range(400):
        labelled = np.arange(200) < rng.integers(1, most + 1, (60, 1))
        y = np.where(labelled, 1, -1)
        decided = (rng.random((60, 200)) < rng.normal(0.8, 0.05, (60, 1))).astype(int)
        right = grade_labels(decided, y)
        draws.append(right.mean())
        errors.append(accuracy_error(right))
    assert np.mean(errors) == pytest.approx(np.std(draws), rel=0.1)


def test_samples_are_drawn_by_the_label_of_most_of_their_steps():
    assert choose_strata(np.array([[3, 3, -1, -1, -1], [0, 1, 1, 2, -1]])).tolist() == [3, 1]
    assert choose_strata(np.array([2, 0])).tolist() == [2, 0]


def test_labels_of_steps_leave_no_choice_of_steps(tmp_path):
    x, y = sequences(steps=4)
    assert list_steps(load_data(save(tmp_path, x=x, y=y))) == (4,)
    assert list_steps(load_data(save(tmp_path, x=x, y=y[:, 0]))) == (1, 2, 4)


def test_labels_of_steps_leave_no_choice_of_steps_of_constant_samples(tmp_path):
    """Samples without a time axis are read with any number of steps, but their labels have one."""
    x, y = sequences(steps=4)
    source = save(tmp_path, x=x[:, 0].astype(np.float32), y=y)
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.eye(3)))], input_shape=(3,))
    assert list_data_steps(source, graph, load_data(source, steps=4), steps=4) == (4,)


def test_data_and_network_have_to_decide_for_the_same():
    x, y = sequences()
    each, once = (
        Dataset(name="d", classes=4, **{key: Split(x=x, y=labels) for key in ("train", "val", "test")}) for labels in (y, y[:, 0])
    )
    each.check((3,), 4, "each")
    once.check((3,), 4, "mean")
    with pytest.raises(DataError, match=r"data 'd': has a label at each step, .* --decision each"):
        each.check((3,), 4, "maximum")
    with pytest.raises(DataError, match=r"data 'd': has one label a sample, and the network decides in each step"):
        once.check((3,), 4, "each")


def test_a_column_of_labels_is_one_label_a_sample():
    column = np.arange(6).reshape(6, 1)
    assert check_labels(column, "data", steps=8).tolist() == list(range(6))
    assert check_labels(column, "data", steps=1).tolist() == list(range(6))
