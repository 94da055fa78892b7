"""What each library reads of what was written for it."""

import math
import os
import socket
import time

import pytest

from flowerpress.simulations import RoundRecord, make_tracker
from flowerpress.simulations.verdict import Verdict

CONFIG = {"strategy": "ef21", "rounds": 2, "strategy_options": {"lr": 0.5, "init_all": True}}


class Ended:
    def __init__(self, status="done", reason=""):
        self.verdict = Verdict(status, reason, ("client 3 took no part",))


def write(name, folder, ended=None, run="run"):
    """Two rounds, of which the second has a NaN and an infinity."""
    tracker = make_tracker(name, folder, run)
    tracker.begin(CONFIG)
    tracker.round(RoundRecord(0, {"loss": 2.0}, {}, 0, 0, 0.5))
    second = {"loss": math.nan, "recall": [0.25, math.inf], "per@class": 3}
    tracker.round(RoundRecord(1, second, {"loss": 1.5}, 100, 200, 0.5, evaluate={"loss": 1.25}))
    tracker.end(ended or Ended())


NAMES = {
    "held-out/loss",
    "held-out/recall/0",
    "held-out/recall/1",
    "held-out/per_class",
    "clients/loss",
    "train/loss",
    "bytes/up",
    "bytes/down",
    "time/seconds",
}


def tensorboard_of(folder):
    found = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = found.EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard(tmp_path, caplog):
    pytest.importorskip("tensorboard")
    write("tensorboard", tmp_path, run="ef21 topk:0.01")
    assert not caplog.records
    events = tensorboard_of(tmp_path / "tensorboard" / "ef21 topk_0.01")
    assert set(events.Tags()["scalars"]) == NAMES

    def values(name):
        return [(each.step, each.value) for each in events.Scalars(name)]

    assert values("bytes/up") == [(0, 0.0), (1, 100.0)]
    assert values("bytes/down") == [(0, 0.0), (1, 200.0)]
    assert values("time/seconds") == [(0, 0.5), (1, 1.0)]
    assert values("held-out/recall/0") == [(1, 0.25)]
    assert values("held-out/recall/1") == [(1, math.inf)]
    assert values("held-out/loss")[0] == (0, 2.0)
    assert math.isnan(values("held-out/loss")[1][1])
    (told,) = events.Tensors("verdict")
    text = told.tensor_proto.string_val[0].decode()
    assert text == "done\n\nclient 3 took no part"


def test_tensorboards_hyperparameters(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import Status

    for status in ("done", "diverged"):
        write("tensorboard", tmp_path, Ended(status), run=status)
        events = tensorboard_of(tmp_path / "tensorboard" / status)
        told = events.summary_metadata
        start = metadata.parse_session_start_info_plugin_data(
            told[metadata.SESSION_START_INFO_TAG].plugin_data.content
        )
        found = {name: each.WhichOneof("kind") for name, each in start.hparams.items()}
        assert found == {
            "strategy": "string_value",
            "rounds": "number_value",
            "strategy_options.lr": "number_value",
            "strategy_options.init_all": "bool_value",
        }
        assert start.hparams["strategy_options.lr"].number_value == 0.5
        end = metadata.parse_session_end_info_plugin_data(
            told[metadata.SESSION_END_INFO_TAG].plugin_data.content
        )
        good = status == "done"
        assert end.status == (Status.STATUS_SUCCESS if good else Status.STATUS_FAILURE)


def test_tensorboard_shows_a_round_as_soon_as_it_is_there(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = make_tracker("tensorboard", tmp_path)
    tracker.round(RoundRecord(0, {"loss": 2.0}, {}, 0, 0, 0.5))
    assert len(tensorboard_of(tmp_path / "tensorboard" / "run").Scalars("held-out/loss")) == 1
    tracker.end(Ended())


# SQLAlchemy warns of what mlflow uses.
of_mlflow = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@of_mlflow
def test_mlflow(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    for ended in ("done", "interrupted", "diverged"):
        write("mlflow", tmp_path / "mine", Ended(ended, "why"), run=f"topk:0.01 {ended}")
    assert "has failed" not in caplog.text
    assert [each.name for each in tmp_path.iterdir()] == ["mine"], "and nothing elsewhere"
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mine/mlflow/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("flowerpress").experiment_id])
    found = {run.info.run_name: (run.info.status, run.data.tags["verdict"]) for run in runs}
    assert found == {
        "topk:0.01 done": ("FINISHED", "done"),
        "topk:0.01 interrupted": ("KILLED", "interrupted"),
        "topk:0.01 diverged": ("FAILED", "diverged"),
    }
    for run in runs:
        assert run.data.params == {
            "strategy": "ef21",
            "rounds": "2",
            "strategy_options.lr": "0.5",
            "strategy_options.init_all": "True",
        }
        assert set(run.data.metrics) == NAMES
        assert run.data.tags["reason"] == "why\nclient 3 took no part"

    def values(name):
        told = client.get_metric_history(runs[0].info.run_id, name)
        return [(each.step, each.value) for each in told]

    assert values("bytes/up") == [(0, 0.0), (1, 100.0)]
    assert values("time/seconds") == [(0, 0.5), (1, 1.0)]
    assert math.isnan(values("held-out/loss")[1][1])
    assert values("held-out/recall/1")[0][1] > 1e308


@of_mlflow
def test_mlflow_goes_where_its_user_says(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'theirs.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "their study")
    for run in ("a", "b"):
        write("mlflow", tmp_path / "mine", run=run)
    assert not (tmp_path / "mine").exists()
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("their study").experiment_id])
    assert {run.info.run_name for run in runs} == {"a", "b"}


@of_mlflow
def test_mlflows_server_is_given_up_within_seconds(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mlflow")
    with socket.socket() as taken:  # bound, and not listening: nobody else answers there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
        start = time.monotonic()
        write("mlflow", tmp_path)
    assert time.monotonic() - start < 60
    assert caplog.text.count("tracking by mlflow has failed") == 1
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@of_mlflow
def test_mlflow_takes_long_lists_and_many_settings(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'many.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = make_tracker("mlflow", tmp_path)
    tracker.begin({f"k{i}": "x" * 1000 for i in range(150)})
    tracker.round(RoundRecord(0, {"recall": [0.5] * 2100}, {}, 0, 0, 0.0))
    tracker.end(Ended())
    assert "has failed" not in caplog.text
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("flowerpress").experiment_id])
    assert len(run.data.params) == 150
    assert len(run.data.metrics) == 2103


def chunks(data):
    """The records of a LevelDB log: wandb's Python has no reader for the file that it syncs."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no room for a header: the next block
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole of a record, or its last part
            yield whole
            whole = b""


def offline_runs(folder):
    """Each offline run's records, by kind; wandb's own process ends a file some time after us."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        records = {}
        until = time.monotonic() + 30
        while "exit" not in records:
            assert time.monotonic() < until, f"{path} has no end: {list(records)}"
            time.sleep(0.05)
            records = {}
            for data in chunks(path.read_bytes()):
                record = Record.FromString(data)
                records.setdefault(record.WhichOneof("record_type"), []).append(record)
        yield records


of_wandb = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@of_wandb
def test_wandb_stays_offline_unless_it_is_told(tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    write("wandb", tmp_path, run="ef21 topk:0.01")
    assert "has failed" not in caplog.text
    (records,) = offline_runs(tmp_path)
    (run,) = records["run"][:1]
    assert run.run.project == "flowerpress"
    assert run.run.display_name == "ef21 topk:0.01"
    assert {each.key for each in run.run.config.update} >= {"strategy", "strategy_options.lr"}
    written = {
        (each.key or "/".join(each.nested_key)): each.value_json
        for record in records["history"]
        for each in record.history.item
    }
    assert set(written) >= NAMES
    assert float(written["bytes/up"]) == 100
    assert written["held-out/loss"] == "NaN"
    summary = {
        (each.key or "/".join(each.nested_key)): each.value_json
        for record in records["summary"]
        for each in record.summary.update
    }
    assert summary["verdict"] == '"done"'


@of_wandb
def test_wandb_goes_where_its_user_says(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    (tmp_path / "theirs").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "theirs"))
    monkeypatch.setenv("WANDB_PROJECT", "their-study")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for run in ("a", "b"):
        write("wandb", tmp_path / "mine", run=run)
    found = list(offline_runs(tmp_path / "theirs"))
    assert {records["run"][0].run.display_name for records in found} == {"a", "b"}
    assert {records["run"][0].run.project for records in found} == {"their-study"}
    assert not list((tmp_path / "mine").rglob("*.wandb"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    write("wandb", tmp_path / "off")
    assert not list((tmp_path / "off").rglob("*.wandb"))
