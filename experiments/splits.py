"""Which examples are trained on, and which are held out."""

from optimization.training import TrainingError


def stratified_split(labels, test_fraction):
    """Returns the indices of the training part and of the held-out part.

    Both have the classes in the proportions of `labels`; the split is the same for every seed.

    Raises:
        TrainingError: If the fraction leaves a part without some class.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    try:
        return train_test_split(
            np.arange(len(labels)), test_size=test_fraction, random_state=0, stratify=labels
        )
    except ValueError as error:
        raise TrainingError(f"task.test_fraction {test_fraction}: {error}") from None
