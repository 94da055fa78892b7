"""What is tested where, of the blocks and commands on the pages.

`tests/pages` runs every Python block and every `flowerpress` command, unless it stands here with
the test that does. A block or command that is neither run nor here fails; so does a line here that
names no test, or nothing that is on a page.
"""

from __future__ import annotations

LINK = "tests/cli/test_link_commands.py"
INSTALLED = "tests/plugins/test_installed.py"
ENGINES = "tests/flower/test_engines.py"
PROJECT = "tests/test_project.py"
DEPLOY = "tests/pages/test_deploy.py"
WHEEL = "tests/test_wheel.py"

# (page, language): the test of all its blocks of that language
BLOCKS = {
    ("README.md", "diff"): "tests/pages/test_blocks.py::test_diffs_are_those_of_the_example_apps",
    ("dropin.md", "diff"): "tests/pages/test_blocks.py::test_diffs_are_those_of_the_example_apps",
    ("dropin.md", "toml"): "tests/pages/test_blocks.py::test_the_run_config_of_a_pressed_app",
    ("engines.md", "toml"): f"{ENGINES}::test_deployment",
    ("compressors.md", "python"): "tests/compressors/test_docs.py::test_examples",
    ("torch.md", "python"): "tests/tasks/test_pages.py::test_from_a_torch_model_to_a_run_and_back",
    ("fifteen-lines.md", "python"): (
        "tests/test_algorithm_pages.py::test_pages_are_what_the_source_says"
    ),
    ("own-algorithm.md", "python"): (
        f"{INSTALLED}::test_an_algorithm_and_a_task_of_another_package_run_by_name"
    ),
    ("own-algorithm.md", "toml"): (
        f"{INSTALLED}::test_an_algorithm_and_a_task_of_another_package_run_by_name"
    ),
    ("own-compressor.md", "python"): f"{INSTALLED}::test_it_is_found_used_and_conforms",
    ("own-compressor.md", "pycon"): f"{INSTALLED}::test_it_is_found_used_and_conforms",
    ("own-compressor.md", "toml"): f"{INSTALLED}::test_it_is_found_used_and_conforms",
    ("own-task.md", "python"): (
        f"{INSTALLED}::test_an_algorithm_and_a_task_of_another_package_run_by_name"
    ),
    ("own-task.md", "toml"): (
        f"{INSTALLED}::test_an_algorithm_and_a_task_of_another_package_run_by_name"
    ),
    ("security.md", "text"): "tests/pages/test_blocks.py::test_lines_of_the_log_are_told_so",
    ("wire-format.md", "text"): "tests/pages/test_blocks.py::test_random_words_as_the_page_says",
}

# (page, beginning of the command): the test that runs it, or a shorter one of its kind
COMMANDS = {
    ("README.md", "python3 -m venv"): f"{WHEEL}::test_the_readmes_install",
    ("README.md", "source .venv"): f"{WHEEL}::test_the_readmes_install",
    ("README.md", "pip install"): f"{WHEEL}::test_the_readmes_install",
    ("README.md", "flowerpress certs"): f"{DEPLOY}::test_three_clients_with_tls",
    ("README.md", "flowerpress serve"): f"{DEPLOY}::test_three_clients_with_tls",
    ("README.md", "flowerpress join"): f"{DEPLOY}::test_three_clients_with_tls",
    ("README.md", "flwr run"): f"{ENGINES}::test_ray_simulation",
    ("README.md", "scripts/deploy"): f"{ENGINES}::test_deployment",
    ("README.md", "scripts/demo"): "tests/pages/test_commands.py::test_the_demo",
    ("README.md", "scripts/test"): f"{PROJECT}::test_scripts_run_and_parse",
    ("CONTRIBUTING.md", "scripts/"): f"{PROJECT}::test_scripts_run_and_parse",
    ("deadlines.md", "flowerpress serve"): (
        "tests/transport/test_uploads.py::"
        "test_over_the_link_a_client_is_told_what_its_own_link_carries"
    ),
    ("start.md", "python3 -m venv"): f"{WHEEL}::test_the_readmes_install",
    ("start.md", "source .venv"): f"{WHEEL}::test_the_readmes_install",
    ("start.md", "pip install"): f"{WHEEL}::test_the_readmes_install",
    ("start.md", "flowerpress --install-completion"): (
        "tests/cli/test_completion.py::test_it_is_installed"
    ),
    ("benchmarks.md", "flowerpress bench"): (
        "tests/cli/test_cli.py::test_compressors_are_measured_without_torch"
    ),
    ("dropin.md", "flwr run"): "tests/dropin/test_engines.py::test_ray",
    ("edge.md", "flowerpress join npy"): (
        "tests/tasks/test_edge.py::test_a_client_works_where_neither_torch_nor_numba_is_installed"
    ),
    ("engines.md", "pip install 'flwr[simulation]'"): f"{ENGINES}::test_ray_simulation",
    ("engines.md", "flwr run . --stream"): f"{ENGINES}::test_ray_simulation",
    ("engines.md", "flower-superlink"): f"{ENGINES}::test_deployment",
    ("engines.md", "flower-supernode"): f"{ENGINES}::test_deployment",
    ("engines.md", "flwr run . lab"): f"{ENGINES}::test_deployment",
    ("engines.md", "flwr list lab"): f"{ENGINES}::test_deployment",
    ("large-models.md", "python -m benchmarks.big_model"): (
        "tests/transport/test_big_model.py::test_it_says_what_it_measured"
    ),
    ("torch.md", "python -m benchmarks.device_client"): (
        "tests/tasks/test_device_path.py::test_the_benchmark_says_what_is_copied"
    ),
    ("link.md", "flowerpress certs"): f"{DEPLOY}::test_the_page_of_the_link",
    ("link.md", "flowerpress serve"): f"{DEPLOY}::test_the_page_of_the_link",
    ("link.md", "flowerpress join"): f"{DEPLOY}::test_the_page_of_the_link",
    ("own-algorithm.md", "pip install"): f"{INSTALLED}::site",
    ("own-algorithm.md", "flowerpress"): (
        f"{INSTALLED}::test_an_algorithm_and_a_task_of_another_package_run_by_name"
    ),
    ("own-algorithm.md", "flwr run"): (
        f"{INSTALLED}::test_flwr_run_takes_an_algorithm_of_another_package"
    ),
    ("own-task.md", "flowerpress run mypackage.module"): (
        "tests/cli/test_own_task.py::test_ways_to_name_it"
    ),
    ("own-task.md", "pip install"): f"{INSTALLED}::site",
    ("own-task.md", "flowerpress list tasks"): (
        f"{INSTALLED}::test_an_algorithm_and_a_task_of_another_package_run_by_name"
    ),
    ("own-task.md", "flowerpress run wells"): (
        f"{INSTALLED}::test_an_algorithm_and_a_task_of_another_package_run_by_name"
    ),
    ("own-task.md", "flowerpress serve wells"): f"{INSTALLED}::test_they_run_over_the_link",
    ("runs.md", "pip install"): (
        "tests/tracking/test_tracker.py::test_a_package_that_is_missing_is_named_with_its_extra"
    ),
    ("runs.md", "tensorboard"): "tests/tracking/test_libraries.py::test_tensorboard",
    ("tasks.md", "pip install"): "tests/tasks/test_text.py::test_a_missing_package_is_named",
    ("runs.md", "flowerpress run package.module"): (
        "tests/cli/test_own_task.py::test_ways_to_name_it"
    ),
    ("runs.md", "flowerpress serve"): (
        "tests/cli/test_own_task.py::test_serve_and_join_take_the_same_names"
    ),
    ("runs.md", "flowerpress join"): (
        "tests/cli/test_own_task.py::test_serve_and_join_take_the_same_names"
    ),
    ("versions.md", "scripts/matrix"): (
        f"{PROJECT}::test_the_matrix_has_the_floors_and_the_newest_of_each_python"
    ),
}

# page: what is put in place of what in its Python, which else takes minutes, and nothing more
SHORTER = {
    "README.md": {"num_rounds=50": "num_rounds=5"},
    "compare.md": {"rounds=10": "rounds=2"},
    "engines.md": {"num_rounds=500": "num_rounds=30"},
    "checkpoints.md": {"num_rounds=200": "num_rounds=5"},
    "runs.md": {
        "num_rounds=50": "num_rounds=5",
        '"runs/20260101-120000-digits-ef21/model.safetensors"': "MODEL",
    },
    "tasks.md": {"a9a.gz": "a.libsvm"},
}

# page: what its Python takes for granted, because the text around it says so
GIVEN = {
    "checkpoints.md": """
from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy
task_fn, strategy = make_task_fn("digits"), make_strategy("ef21", lr=0.5)
""",
    "runs.md": """
from pathlib import Path
from flowerpress.cli import main
from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy
task_fn, strategy = make_task_fn("digits"), make_strategy("ef21", lr=0.5)
evaluate_fn = task_fn.evaluate_fn
assert main(["run", "digits", "--strategy", "ef21", "--rounds", "1", "--clients", "2"]) == 0
(MODEL,) = Path("runs").glob("*/model.safetensors")
""",
    "tasks.md": """
from pathlib import Path
from flowerpress.simulations.tasks import make_task_fn
rows = (f"{i % 2 * 2 - 1} 1:{i % 7} 2:{i % 5}" for i in range(40))
Path("a.libsvm").write_text("\\n".join(rows) + "\\n")
""",
}

# page: Python that says whether its blocks did what the text says
THEN = {
    "deadlines.md": (
        "told = result.history[-1].train\n"
        "assert told['auto-step-min'] < told['auto-step-max'] == 12"
    ),
    "README.md": "assert result.history[-1].metrics['accuracy'] > 0.5",
    "compare.md": "assert [len(r.outcomes) for r in found.results] == [2, 2]",
    "how-it-works.md": (
        "assert abs(result.arrays['x'].numpy() - 1.5).max() < 0.01\n"
        "assert result.ledger.up_bytes * 8 < 4 * 200 * 1000 * 8"
    ),
    "engines.md": "assert len(result.history) <= 31",
    "gossip.md": "assert len(result.history[-1].nodes) == 8",
    "tasks.md": (
        "assert abs(result.arrays['x'].numpy() - 1.5).max() < 0.01\nassert L_i.shape == (20,)"
    ),
    "checkpoints.md": "assert Path('saved').is_dir()",
    "runs.md": "assert sorted(state) and result.attendance.clients[3]",
    "start.md": "assert evaluate_fn(0, task_fn(0, 4).initial_arrays())['accuracy'] >= 0",
}
