import itertools

import numpy as np
import pytest
import tensorflow as tf

from optimization import DataConfig
from optimization.training import TrainingError, array_batches

ROWS = np.arange(10)
TRAINING = {"global_batch_size": 4, "is_training": True}


def batches(count=None, context=None, rows=ROWS, **params):
    dataset = array_batches(rows, DataConfig(params), context)
    return [batch.tolist() for batch in dataset.take(count or -1).as_numpy_iterator()]


def context(replicas, pipelines=1, pipeline=0):
    return tf.distribute.InputContext(pipelines, pipeline, replicas)


def test_training_goes_on_into_the_next_epoch_or_leaves_the_rest_out():
    assert batches(4, **TRAINING) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5]]
    expected = [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert batches(4, drop_remainder=True, **TRAINING) == expected


def test_validation_ends_with_a_smaller_batch_or_without_it():
    assert batches(global_batch_size=4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches(global_batch_size=4, drop_remainder=True) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batches(global_batch_size=16) == [list(range(10))]


def test_each_epoch_is_a_permutation_of_its_own():
    flat = np.concatenate(batches(10, shuffle=True, seed=1, **TRAINING)).reshape(4, 10)
    for epoch in flat:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in flat}) == 4


def test_the_order_depends_on_the_seed_alone():
    one = batches(5, shuffle=True, seed=1, **TRAINING)
    assert batches(5, shuffle=True, seed=1, **TRAINING) == one
    assert batches(5, shuffle=True, seed=2, **TRAINING) != one
    assert batches(5, shuffle=True, seed=2**32 - 1, **TRAINING) != one


def test_a_batch_is_the_same_wherever_reading_starts():
    dataset = array_batches(ROWS, DataConfig(TRAINING, shuffle=True, seed=3))
    all_batches = list(dataset.take(50).as_numpy_iterator())
    (late,) = dataset.skip(49).take(1).as_numpy_iterator()
    np.testing.assert_array_equal(late, all_batches[49])


def test_a_shuffled_order_is_spread_evenly():
    """The mean row of the first place over 2000 epochs of 100 rows is 49.5 within 4 sigma."""
    first = batches(
        2000, rows=np.arange(100), shuffle=True, seed=5, global_batch_size=100, is_training=True
    )
    mean = np.mean([batch[0] for batch in first])
    assert abs(mean - 49.5) < 4 * np.sqrt((100**2 - 1) / 12 / 2000)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("workers", "per_worker"), [(1, 2), (2, 1), (2, 2)])
def test_the_slices_of_the_replicas_make_the_global_batch(is_training, workers, per_worker):
    params = {"global_batch_size": 8, "is_training": is_training, "shuffle": True, "seed": 1}
    rows = np.arange(21)
    steps = 3
    whole = batches(steps, rows=rows, **params)
    of_workers = [
        batches(steps * per_worker, context(workers * per_worker, workers, w), rows=rows, **params)
        for w in range(workers)
    ]
    for step, expected in enumerate(whole):
        slices = [
            of_workers[w][step * per_worker + replica]
            for w in range(workers)
            for replica in range(per_worker)
        ]
        assert list(itertools.chain(*slices)) == expected
        assert max(map(len, slices)) <= 8 // (workers * per_worker)


def test_all_replicas_have_as_many_batches_some_of_them_empty():
    parts = batches(None, context(2), rows=np.arange(9), global_batch_size=8)
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8], []]


def test_nested_arrays_and_a_transform():
    arrays = ({"a": ROWS, "b": ROWS * 10}, ROWS + 100)
    dataset = array_batches(
        arrays,
        DataConfig(global_batch_size=10),
        transform=lambda features, labels: (features["a"] + features["b"], labels),
    )
    ((features, labels),) = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(features, ROWS * 11)
    np.testing.assert_array_equal(labels, ROWS + 100)


def test_what_cannot_be_served_is_an_error():
    with pytest.raises(TrainingError, match="multiple of the 3 replicas, got 4"):
        batches(1, context(3), **TRAINING)
    with pytest.raises(TrainingError, match="only 10 examples, and `drop_remainder` leaves none"):
        batches(1, global_batch_size=11, drop_remainder=True)
    with pytest.raises(TrainingError, match="must be > 0, got 0"):
        batches(1)
    with pytest.raises(ValueError, match=r"arrays of one length.*received lengths: \[9, 10\]"):
        array_batches((ROWS, ROWS[1:]), DataConfig(TRAINING))
    with pytest.raises(ValueError, match=r"received lengths: \[0\]"):
        array_batches(ROWS[:0], DataConfig(TRAINING))
