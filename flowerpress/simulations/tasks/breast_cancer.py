"""Task `breast-cancer`: the problem of `libsvm` on scikit-learn's set of 569 tumours, offline."""

from __future__ import annotations

import numpy as np

from flowerpress.extras import import_failure
from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.logistic import LogisticTaskFn


class BreastCancerTaskFn(LogisticTaskFn):
    """Logistic regression on 569 tumours of 30 features each; 1 is benign, -1 malignant.

    Each feature is scaled to mean 0 and standard deviation 1. What is measured is the training
    problem over all rows (`loss`, `gradient_norm_sq`) and the `accuracy` on them.
    """

    name = "breast-cancer"
    summary_line = (
        "logistic regression with a non-convex regularizer on scikit-learn's 569 tumours, numpy"
    )
    citation = "Wolberg, Mangasarian, Street and Street, Breast Cancer Wisconsin, UCI, 1993"
    options = {  # noqa: RUF012  (read only)
        "lam": options.real(0),
        "x0": options.choice("zeros", "normal"),
        "equal_shards": options.whole(0),
        "batch_size": options.batch_size,
    }

    def __init__(
        self,
        *,
        partition: str = "iid",
        seed: int = 0,
        lam: float = 0.1,
        x0: str = "zeros",
        equal_shards: int = 0,
        batch_size: int | None = None,
    ) -> None:
        """Read the data.

        Parameters
        ----------
        partition : str, default "iid"
            A partition spec; `contiguous` shares out the rows in the order of the set.
        seed : int, default 0
            Fixes the shards and `x0="normal"`.
        lam : float, default 0.1
            Weight of the regularizer.
        x0 : str, default "zeros"
            `zeros`, or `normal`: independent N(0, 1).
        equal_shards : int, default 0
            Drop the last 569 mod `equal_shards` rows, so that this many clients get equal shards.
            0: drop none.
        batch_size : int or None, default None
            Examples in a batch; None: a full gradient.
        """
        try:
            from sklearn.datasets import load_breast_cancer
        except ImportError as error:
            raise import_failure(
                error, "task 'breast-cancer'", "scikit-learn", "sklearn"
            ) from error
        inputs, benign = load_breast_cancer(return_X_y=True)
        scaled = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
        super().__init__(
            scaled,
            np.where(benign == 1, 1.0, -1.0),
            partition=partition,
            seed=seed,
            lam=lam,
            x0=x0,
            equal_shards=equal_shards,
            batch_size=batch_size,
        )
