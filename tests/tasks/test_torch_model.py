"""Buffers, modes, frozen and tied parameters of torch models, and evaluation on the server."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.tasks.torch_task import TorchBatch, TorchTask

from .checks import check_contract, start

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional
prune = pytest.importorskip("torch.nn.utils.prune")
pytestmark = pytest.mark.usefixtures("one_torch_thread")
INPUTS = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
CLASSES = np.arange(40) % 2


def task(model, **options):
    options = {"batch_size": 8} | options
    return TorchTask(model, nn.CrossEntropyLoss(), (INPUTS, CLASSES), **options)


def network(*extra):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *extra, nn.ReLU(), nn.Linear(6, 2))


class Tables(nn.Module):
    """A layer with buffers of all kinds, one of which never travels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(4, 2)
        self.register_buffer("ids", torch.tensor([2**24 + 1, 2**62 + 1]))
        self.register_buffer("wide", torch.tensor([1 / 3], dtype=torch.float64))
        self.register_buffer("short", torch.tensor(0.1, dtype=torch.float16))
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.register_buffer("on", torch.tensor([True, False]))
        self.register_buffer("phase", torch.tensor([1j / 3], dtype=torch.complex128))
        self.register_buffer("byte", torch.tensor([0, 255], dtype=torch.uint8))
        self.register_buffer("none", None)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("own", torch.zeros((), dtype=torch.bfloat16), persistent=False)

    def forward(self, x):
        self.seen = self.seen + 1  # another tensor in its place
        self.own += 1
        return self.out(x)


def test_buffers_go_out_and_come_back_as_they_are():
    subject, model = task(Tables()), Tables()
    expected = {name: value for name, value in model.state_dict().items() if "out" not in name}
    assert subject.buffer_names() == tuple(expected)
    for name, value in subject.buffers().items():
        assert value.tobytes() == expected[name].numpy().tobytes()
    subject.load_buffers(
        {name: value.numpy() for name, value in expected.items()}
        | {"ids": np.array([5, 2**63 - 1])}
    )
    assert subject.buffers()["ids"].tolist() == [5, 2**63 - 1]
    with pytest.raises(ValueError, match=r"'ids' is torch.int64, not torch.float64"):
        subject.load_buffers({"ids": np.array([0.5, 1])})


def test_a_buffer_that_is_replaced_is_the_new_one():
    subject = task(Tables())
    for _ in range(3):
        subject.gradient(start(subject), None)
    assert subject.buffers()["seen"] == 3
    subject.load_buffers({"seen": np.float32(10)})
    subject.gradient(start(subject), None)
    assert subject.buffers()["seen"] == 11


def test_a_buffer_whose_elements_share_memory_is_one_like_others():
    """As `expand` makes them: torch refuses to write one in place."""

    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 2)
            self.register_buffer("mask", torch.tensor(-torch.inf).expand(2, 2))
            self.register_buffer("own", torch.ones(1).expand(3), persistent=False)

        def forward(self, x):
            if self.own[0] < 4:
                self.own = self.own[:1].add(1).expand(3)
                return self.out(x)
            return self.out(nn.functional.dropout(x, training=self.training))  # taken back, redone

    subject = task(Expanded())
    for _ in range(5):
        subject.gradient(start(subject), subject.draw(np.random.default_rng(0)))
    subject.load_buffers({"mask": np.arange(4, dtype="f4").reshape(2, 2)})
    assert subject.buffers()["mask"].tolist() == [[0, 1], [2, 3]]
    result = simulate(make_strategy("ef21", lr=0.1), lambda i, n: task(Expanded()), 2, 2)
    assert (result.arrays["mask"].numpy() == -np.inf).all()


def test_a_run_returns_buffers_as_they_were():
    result = simulate(make_strategy("ef21", lr=0.1), lambda i, n: task(Tables()), 2, 2)
    for name, value in Tables().state_dict().items():
        if "out" in name or name == "seen":
            continue
        found = result.arrays[name].numpy()
        assert found.tobytes() == value.numpy().tobytes(), name
    assert result.arrays["seen"].numpy() == 2
    Tables().load_state_dict(result.arrays.to_torch_state_dict())


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.zeros(2, dtype=torch.bfloat16), "bfloat16"),
        (torch.zeros(2, dtype=torch.float8_e5m2), "float8_e5m2"),
        (torch.eye(2).to_sparse(), "torch.sparse_coo"),
    ],
    ids=["bfloat16", "float8", "sparse"],
)
def test_a_buffer_that_cannot_travel_is_named_with_the_remedy(value, kind):
    model = network()
    model.register_buffer("table", value)
    with pytest.raises(TypeError, match=f"buffer 'table' is {kind}.*persistent=False"):
        task(model)
    model.register_buffer("table", value, persistent=False)
    check_contract(task(model))


def test_extra_state_is_no_buffer():
    class Stateful(nn.Linear):
        def get_extra_state(self):
            return torch.ones(3)

        def set_extra_state(self, state):
            pass

    assert task(Stateful(4, 2)).buffer_names() == ()


def test_passes_can_be_taken_back():
    subject = task(nn.Sequential(Tables(), nn.BatchNorm1d(2)))
    subject.gradient(start(subject), None)
    before = subject.buffers()
    with subject.keeping_buffers():
        subject.gradient(start(subject), None)
        assert subject.buffers()["0.seen"] == 2
        assert subject.buffers()["1.num_batches_tracked"] == 2
    for name, value in subject.buffers().items():
        np.testing.assert_array_equal(value, before[name])
    assert subject._model.module[0].own == 1  # what never travels as well


# --- modes ---


def moved(subject):
    """Whether a gradient moves batch norm's statistics, of each layer that has some."""
    before = subject.buffers()
    subject.gradient(start(subject), subject.draw(np.random.default_rng(0)))
    after = subject.buffers()
    names = [name for name in before if name.endswith("running_mean")]
    return [not np.array_equal(before[name], after[name]) for name in names]


def two_norms():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    return nn.Sequential(body, nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


def test_modules_in_evaluation_mode_stay_so():
    model = two_norms()
    assert moved(task(model)) == [True, True]
    model[0].eval()
    subject = task(model)
    for _ in range(2):
        assert moved(subject) == [False, True]
        subject.evaluate(start(subject))
    batch = TorchBatch(np.arange(8), 0)
    first = subject.gradient(start(subject), batch)[0]
    assert subject.gradient(start(subject), batch._replace(seed=1))[0] == first  # no dropout
    # The other way round: only the head in training mode.
    model.eval()
    model[2].train()
    assert moved(task(model)) == [False, True]


def test_a_model_in_evaluation_mode_as_a_whole_is_trained():
    """As it comes from `from_pretrained`, or from a measurement."""
    assert moved(task(two_norms().eval())) == [True, True]
    single = nn.Linear(4, 2).eval()
    check_contract(task(single))


def test_a_module_may_keep_its_mode_by_its_own_train():
    class Frozen(nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    model = nn.Sequential(nn.Linear(4, 6), Frozen(6), nn.Linear(6, 2))
    subject = task(model)
    assert moved(subject) == [False]
    subject.evaluate(start(subject))
    assert moved(subject) == [False]


# --- statistics of algorithms that take gradients at two models ---


class Spectral(nn.Module):
    """Batch norm, and spectral norm, whose vectors move in each pass in training mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2))

    def forward(self, x):
        return self.out(self.norm(x))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vr-marina", {"p": 0.3}),
        ("pp-marina", {"p": 0.3}),
        ("pp-marina", {"p": 0.3, "fraction_train": 0.4}),
        ("marina", {"p": 0.3}),
        ("dasha", {}),
        ("sketched-sgd", {"columns": 8, "k": 4}),
        ("ef21-sgdm", {}),
    ],
)
def test_each_round_counts_one_pass_at_the_new_model(name, options):
    rounds = 6

    def task_fn(i, n):
        return task(Spectral())

    result = simulate(make_strategy(name, lr=0.05, **options), task_fn, 3, rounds)
    assert result.arrays["norm.num_batches_tracked"].numpy() == rounds
    # All clients have the same data: where a round is one full pass, so are the statistics.
    if name in ("pp-marina", "marina", "dasha"):
        norm = nn.BatchNorm1d(4)
        for _ in range(rounds):
            norm(torch.from_numpy(INPUTS))
        np.testing.assert_allclose(
            result.arrays["norm.running_mean"].numpy(), norm.running_mean, rtol=1e-5, atol=1e-7
        )


def test_both_gradients_of_a_difference_are_of_one_function():
    """At equal models their difference is zero, whatever a pass does to the buffers."""
    sent = []

    class Watched(TorchTask):
        def gradient(self, x, batch):
            loss, gradient = super().gradient(x, batch)
            sent.append(gradient)
            return loss, gradient

    def task_fn(i, n):
        return Watched(Spectral(), nn.CrossEntropyLoss(), (INPUTS, CLASSES), batch_size=8)

    for name in ("vr-marina", "pp-marina"):
        sent.clear()
        simulate(make_strategy(name, lr=1e-30, p=1e-9), task_fn, 2, 3, threads=1)
        assert len(sent) == 2 + 2 * 2 * 2
        for old, new in zip(sent[2::2], sent[3::2], strict=True):
            np.testing.assert_array_equal(old, new)


# --- frozen and tied parameters; state_dicts ---


class Tied(nn.Module):
    """An embedding that is also the output layer, a frozen layer, and batch norm."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.head = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
        self.head.weight = self.table.weight
        self.frozen = nn.Linear(3, 4)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.head(self.norm(self.frozen(self.table(x))))


def run(initial, seeds=(0, 0), evaluate_fn=None):
    def task_fn(i, n):
        return task(Tied(seeds[i]))

    task_fn.initial_arrays = lambda: ArrayRecord(initial)
    return simulate(make_strategy("fedavg", lr=0.1), task_fn, 2, 2, evaluate_fn=evaluate_fn)


def test_a_state_dict_starts_a_run_and_its_result_goes_back():
    model = Tied()
    measure = task(Tied()).evaluate_fn()
    result = run(model.state_dict(), evaluate_fn=measure)
    assert set(result.arrays) == {
        "table.weight",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    trained = Tied()
    missing, unexpected = trained.load_state_dict(result.arrays.to_torch_state_dict(), strict=False)
    assert (sorted(missing), unexpected) == (["frozen.bias", "frozen.weight", "head.weight"], [])
    assert torch.equal(trained.head.weight, trained.table.weight)
    with torch.no_grad():
        outputs = trained.eval()(torch.from_numpy(INPUTS))
        loss = functional.cross_entropy(outputs, torch.from_numpy(CLASSES)).item()
    assert measure(2, result.arrays)["loss"] == pytest.approx(loss, rel=1e-6)
    assert result.history[0].metrics["loss"] > result.history[2].metrics["loss"]


def test_what_a_state_dict_has_wrong_is_named():
    state = Tied().state_dict()
    with pytest.raises(RuntimeError, match=r"initial_arrays: 'frozen.weight' never travels"):
        run(state, seeds=(1, 1))
    with pytest.raises(RuntimeError, match=r"initial_arrays: 'frozen.weight' never travels"):
        run(state, seeds=(0, 1))
    for changes, reason in [
        ({"head.weight": torch.zeros(3, 4)}, "'head.weight' and 'table.weight' are one array"),
        ({"hed.weight": torch.zeros(1)}, "the arrays name 'hed.weight'"),
        ({"norm.bias": torch.zeros(4).double()}, r"'norm.bias' is float64 \(4,\), in the clients'"),
    ]:
        with pytest.raises(RuntimeError, match=reason):
            run(state | changes)
        with pytest.raises(ValueError, match=reason):
            task(Tied()).evaluate_fn()(0, ArrayRecord(state | changes))
    del state["norm.running_var"]
    with pytest.raises(RuntimeError, match=r"the arrays lack 'norm.running_var'"):
        run(state)


def test_kept_names_are_the_rest_of_the_state_dict():
    subject, model = task(Tied()), Tied()
    named = {*subject.initial_arrays(), *subject.kept_names()}
    assert named == set(model.state_dict())
    model.frozen.to(torch.bfloat16)  # numpy has no such, and a frozen array may be
    assert set(task(model).kept_names()) == set(subject.kept_names())
    assert task(model).kept_names()["frozen.bias"] != subject.kept_names()["frozen.bias"]


def test_a_parameter_that_is_not_finite_is_named():
    def task_fn(i, n):
        model = network()
        with torch.no_grad():
            model[2].bias[1] = -torch.inf
        return task(model)

    with pytest.raises(
        RuntimeError, match=r"initial_arrays: '2.bias' is trained, but not .* \[1\]"
    ):
        simulate(make_strategy("fedavg"), task_fn, 2, 1)


def weight_normed():
    with warnings.catch_warnings():  # torch would rather see the parametrization
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(nn.Linear(4, 4))


class Remembers(nn.Linear):
    """A layer that keeps its last output."""

    def forward(self, inputs):
        self.last = super().forward(inputs)
        return self.last


def remembers():
    layer = Remembers(4, 4)
    layer(torch.tensor(INPUTS))
    return layer


@pytest.mark.parametrize(
    "make",
    [weight_normed, lambda: prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5), remembers],
    ids=["weight norm", "pruned", "remembers"],
)
def test_a_model_that_keeps_results_is_copied(make):
    """Its gradient is torch's own: what was kept is made anew in each pass."""
    torch.manual_seed(0)
    model = nn.Sequential(make(), nn.Linear(4, 2))
    subject = task(model)
    loss = nn.CrossEntropyLoss()(model(torch.tensor(INPUTS)), torch.tensor(CLASSES))
    parts = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    x = start(subject)
    for shift in (0.5, 0.0):  # away and back
        found = subject.gradient(x + np.float32(shift), None)
    assert found[0] == pytest.approx(loss.item(), rel=1e-6)  # float32, in another order
    whole = torch.cat([part.flatten() for part in parts]).numpy()
    np.testing.assert_allclose(found[1], whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("model", "what"), [(len, "builtin_f"), (nn.Linear, "the class Linear")])
def test_what_is_no_module_is_named(model, what):
    with pytest.raises(TypeError, match=f"must be a torch.nn.Module, not {what}"):
        task(model)


@pytest.mark.parametrize(
    ("lazy", "name"),
    [
        (nn.LazyLinear, "parameter '0.weight'"),
        (lambda _: nn.LazyBatchNorm1d(affine=False), "buffer '0.running_mean'"),
    ],
)
def test_a_lazy_module_is_named(lazy, name):
    with pytest.raises(ValueError, match=f"{name} has no shape yet: give the lazy module"):
        task(nn.Sequential(lazy(2), nn.Linear(4, 2)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # Module.to of a scripted one
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.jit.script], ids=["parallel", "scripted"])
def test_wrapped_models_are_trained_as_what_they_wrap(wrap):
    plain = task(network(nn.BatchNorm1d(6)))
    subject = task(wrap(network(nn.BatchNorm1d(6))))
    check_contract(subject)
    x = start(plain)
    np.testing.assert_array_equal(subject.gradient(x, None)[1], plain.gradient(x, None)[1])
    assert len(subject.buffer_names()) == 3


# --- evaluation on the server ---


def test_every_task_gives_an_evaluate_fn():
    subject = task(network(nn.BatchNorm1d(6)))
    arrays, before = subject.initial_arrays(), subject.buffers()
    shifted = ArrayRecord({**arrays, "1.running_mean": Array(np.full(6, 3, np.float32))})
    measure = subject.evaluate_fn()
    plain = subject.evaluate(start(subject))
    assert dict(measure(0, arrays)) == plain
    assert measure(1, shifted)["loss"] != plain["loss"]
    for name, value in subject.buffers().items():
        np.testing.assert_array_equal(value, before[name])  # a client goes on with its own


def test_evaluation_sees_the_training_data_without_test_data_and_moves_with_the_task():
    subject = task(copy.deepcopy(network()))
    moved_too = task(copy.deepcopy(network()), test_data=(INPUTS[:5], CLASSES[:5])).to("cpu")
    assert subject.to("cpu").evaluate(start(subject))["loss"] > 0
    assert moved_too.evaluate(start(moved_too)) != subject.evaluate(start(subject))
