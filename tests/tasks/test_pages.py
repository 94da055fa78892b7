"""The code on the page about torch models runs, in its order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "torch.md"


@pytest.mark.usefixtures("one_torch_thread")
def test_from_a_torch_model_to_a_run_and_back(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 8
    names: dict = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        if number == 3:
            last = names["result"].history[-1].metrics
            assert names["accuracy"] == pytest.approx(last["accuracy"], abs=1e-9)
            assert last["accuracy"] > 0.6
    again, model = names["again"].state_dict(), names["model"].state_dict()
    assert all(torch.equal(again[name], model[name]) for name in model)
    task = names["parts"]
    x = torch.cat([p.detach().reshape(-1) for p in task._model.module.parameters()]).numpy()
    whole = torch.nn.CrossEntropyLoss(weight=names["weight"])(
        task._model.module(torch.tensor(names["X"]).float()), torch.tensor(names["y"])
    )
    assert task.gradient(x, None)[0] == pytest.approx(whole.item(), rel=1e-6)
