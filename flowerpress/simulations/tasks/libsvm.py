"""Task `libsvm`: logistic regression on a LIBSVM file, as in the EF21 and MARINA papers."""

from __future__ import annotations

import numpy as np

from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.libsvm_file import read_libsvm
from flowerpress.simulations.tasks.logistic import LogisticTask, LogisticTaskFn, Matrix


class LibsvmTaskFn(LogisticTaskFn):
    """Logistic regression on a LIBSVM file.

    What is measured is the training problem over all rows (`loss`, `gradient_norm_sq`), as in the
    papers, and the `accuracy` on the rows of `test_path`, or on the training rows without one.
    """

    name = "libsvm"
    summary_line = (
        "logistic regression with a non-convex regularizer on a LIBSVM file (path), numpy"
    )
    citation = "Richtarik, Sokolov and Fatkhullin, EF21, arXiv:2106.05203"
    options = {  # noqa: RUF012  (read only)
        "path": options.path,
        "test_path": options.path,
        "lam": options.real(0),
        "x0": options.choice("zeros", "normal"),
        "dim": options.whole(1),
        "equal_shards": options.whole(0),
        "batch_size": options.batch_size,
    }

    def __init__(
        self,
        *,
        path: str | None = None,
        partition: str = "iid",
        seed: int = 0,
        test_path: str | None = None,
        lam: float = 0.1,
        x0: str = "zeros",
        dim: int | None = None,
        equal_shards: int = 0,
        batch_size: int | None = None,
    ) -> None:
        """Read the data.

        Parameters
        ----------
        path : str
            The training data.
        partition : str, default "iid"
            A partition spec; `contiguous` is the papers'.
        seed : int, default 0
            Fixes the shards and `x0="normal"`.
        test_path : str, optional
            Data to measure the accuracy on.
        lam : float, default 0.1
            Weight of the regularizer.
        x0 : str, default "zeros"
            `zeros`, or `normal`: independent N(0, 1).
        dim : int, optional
            Number of features. Default: the largest index in `path`.
        equal_shards : int, default 0
            Drop the last N mod `equal_shards` rows, so that this many clients get equal shards, as
            in the papers. 0: drop none.
        batch_size : int or None, default None
            Examples in a batch; None: a full gradient.
        """
        if path is None:
            raise ValueError("task 'libsvm' needs path=FILE: a LIBSVM text file, plain or .gz")
        features, labels = read_libsvm(path, dim)
        classes = np.unique(labels)
        test = None
        if test_path is not None:
            rows, signs = read_libsvm(test_path, features.shape[1])
            test = LogisticTask(rows, _signs(test_path, signs, classes))
        super().__init__(
            features,
            _signs(path, labels, classes),
            partition=partition,
            seed=seed,
            lam=lam,
            x0=x0,
            equal_shards=equal_shards,
            batch_size=batch_size,
            test=test,
            source=path,
        )


def _signs(path: str, labels: Matrix, classes: Matrix) -> Matrix:
    """Map the smaller of two classes to -1 and the larger to +1."""
    if len(classes) != 2:
        some = ", ".join(f"{label:g}" for label in classes[:5])
        raise ValueError(f"{path}: needs two classes, but the labels are {some} ({len(classes)})")
    if strange := set(labels.tolist()) - set(classes.tolist()):
        raise ValueError(
            f"{path}: label {min(strange):g} is none of the classes {classes[0]:g}, {classes[1]:g}"
        )
    return np.where(labels == classes[1], 1.0, -1.0)
