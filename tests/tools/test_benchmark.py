"""The benchmark's machinery, on tiny lists. Nothing here depends on how long anything takes."""

import itertools
import json
import math
import sys

import numpy as np
import pytest

from tests.tools.fakes import Descent, FakeProcess
from tools.benchmark import __main__ as command
from tools.benchmark import chart, machine, memory, report
from tools.benchmark.contestants import CONTESTANTS, load
from tools.benchmark.floor import Floor
from tools.benchmark.lists import LISTS, QUICK, parameters
from tools.benchmark.page import fill
from tools.benchmark.processes import ROOT, Process, WorkerError
from tools.benchmark.turns import Result, Turns
from tools.benchmark.variants import TOLERANCE, VARIANTS
from tools.benchmark.worker import Worker

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "tensors", "millions"),
    [
        ("bert_base", 199, 109.48),
        ("resnet50", 161, 25.56),
        ("tiny", 10_000, 7.68),
        ("tiny_in_199", 199, 7.68),
        ("huge", 7, 109.05),
        ("blocks", 32, 1.58),
    ],
)
def test_the_lists_are_those_of_the_models(name, tensors, millions):
    found = parameters(name)
    assert len(found) == tensors
    assert sum(tensor.size for tensor in found) / 1e6 == pytest.approx(millions, abs=0.01)
    assert len({tensor.name for tensor in found}) == tensors


@pytest.mark.parametrize("name", LISTS)
def test_every_list_has_a_quick_form_and_what_is_excluded_from_decay(name):
    quick = parameters(name, quick=True)
    assert sum(t.size for t in quick) <= sum(t.size for t in parameters(name))
    assert LISTS.keys() == QUICK.keys()
    for kind in ("kernel", "layer_norm", "bias"):
        if (name, kind) != ("tiny", "kernel"):
            assert any(kind in tensor.name for tensor in quick)


def test_numbers_are_the_same_each_time_and_differ_by_tensor_and_seed():
    first, second = parameters("check")[1:3]
    again = parameters("check")[1]
    np.testing.assert_array_equal(first.weights(), again.weights())
    np.testing.assert_array_equal(first.gradient(3), again.gradient(3))
    assert first.weights().dtype == np.float32
    assert not np.array_equal(first.weights(), second.weights())
    assert not np.array_equal(first.gradient(0), first.gradient(1))
    assert np.abs(first.gradient()).min() >= 0.5


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("adamw", 28),
        ("adamw_clip", 32),
        ("adamw_clip_exclude", 32),
        ("adamw_clip_ema", 40),
        ("adamw_accumulate_4", 64),
        ("lamb", 40),
        ("lars", 28),
        ("adafactor", 24),
        ("sgd_momentum", 20),
        ("lion", 20),
        ("nadam", 28),
        ("adamax", 28),
        ("adagrad", 20),
        ("rmsprop", 20),
        ("ademamix", 36),
        ("adopt", 28),
        ("radam", 28),
        ("stable_adamw", 36),
        ("schedule_free_adamw", 28),
        ("prodigy", 40),
        ("muon", 20),
        ("soap", 28),
    ],
)
def test_bytes_of_an_update(variant, expected):
    assert VARIANTS[variant].bytes_per_parameter == expected


def test_traffic_and_tensors_of_an_update():
    assert VARIANTS["adamw_clip"].traffic() == "read g; read g m v w, write m v w"
    # Weights, gradients and two moments; an update in between is not kept.
    assert VARIANTS["lamb"].tensors == 4
    assert VARIANTS["adamw_clip_ema"].tensors == 5


@pytest.mark.parametrize("threads", [1, 3])
def test_the_floor_adds_all_numbers(threads):
    floor = Floor(1000, threads)
    assert floor.measure() > 0
    added = np.concatenate([a for a, _ in floor._parts])
    assert added.shape == (1000,)
    # Two measurements of three additions each, one of them when it was made.
    np.testing.assert_allclose(added, 1 + 6e-6, rtol=0, atol=5e-7)  # float32 near 1
    floor.close()


def test_the_peak_of_the_memory_starts_anew():
    if not memory.reset_peak():
        pytest.skip("the system does not allow it")
    before = memory.peak()
    block = np.ones(1 << 23)
    assert memory.peak() >= before + block.nbytes / 2
    size = block.nbytes
    del block
    assert memory.reset_peak()
    assert memory.peak() < before + size / 2


def turns(processes, rounds=2):
    lines = []
    return Turns(processes, rounds, True, lines.append), lines


def test_contestants_take_turns_and_are_compared():
    processes = [
        FakeProcess("ours", Descent()),
        FakeProcess("keras", Descent()),
        FakeProcess("optax", Descent(rate=0.1 + 0.2 * TOLERANCE)),
    ]
    found = turns(processes)[0].measure("check", "adamw")
    assert [result.contestant for result in found] == ["ours", "keras", "optax"]
    assert [result.agrees for result in found] == [True, True, False]
    assert found[1].difference == 0
    # The weights go as much too far as the rate is too high: by 2e-3 of the way.
    assert found[2].difference == pytest.approx(2 * TOLERANCE, rel=0.01)
    for process, result in zip(processes, found, strict=True):
        assert len(result.milliseconds) == len(result.floors) == 2
        assert process.asked[:4] == ["check", "prepare", "time", "reset_peak"]
        assert process.asked[4:] == ["time", "time", "memory", "sample", "finish"]
        assert result.skipped is None


def test_what_a_contestant_does_in_the_timed_run_is_compared_too():
    class Tired(Descent):
        def build(self, tensors, variant):
            update = super().build(tensors, variant)
            run, calls = update.run, [0]

            def few(count):
                calls[0] += count
                if calls[0] <= 5:
                    run(count)

            update.run = few
            return update

    processes = [FakeProcess("ours", Descent()), FakeProcess("keras", Tired())]
    found = turns(processes)[0].measure("check", "adamw")
    assert [result.agrees for result in found] == [True, False]


@pytest.mark.parametrize(("variant", "updates"), [("adamw", 20), ("soap", 10)])
def test_a_turn_is_as_long_as_the_list_or_the_variant_says(variant, updates):
    asked = []

    class Counting(FakeProcess):
        def ask(self, request, **arguments):
            asked.append(arguments.get("updates"))
            return super().ask(request, **arguments)

    turns([Counting("ours", Descent())])[0].measure("check", variant)
    assert [count for count in asked if count] == [1, updates, updates]


def test_what_multiplies_matrices_is_measured_on_the_blocks():
    assert VARIANTS["muon"].is_for("blocks")
    assert not VARIANTS["soap"].is_for("bert_base")
    assert VARIANTS["ademamix"].is_for("bert_base")


def test_a_process_that_keeps_memory_is_stopped():
    class Keeping(FakeProcess):
        def ask(self, request, **arguments):
            result = super().ask(request, **arguments)
            return 1 << 30 if request == "finish" else result

    processes = [Keeping("ours", Descent()), FakeProcess("keras", Descent())]
    measuring, _ = turns(processes)
    for _ in range(2):  # it is started again
        assert [r.skipped for r in measuring.measure("check", "adamw")] == [None, None]
    assert [process.alive for process in processes] == [False, True]


@pytest.mark.parametrize("request_", ["check", "prepare", "time"])
def test_a_failure_is_noted_and_the_others_go_on(request_):
    failing = FakeProcess("keras", Descent(), fails=request_)
    processes = [FakeProcess("ours", Descent()), failing]
    measuring, lines = turns(processes)
    ours, keras = measuring.measure("check", "adamw")
    assert keras.skipped == f"{request_} failed"
    assert len(ours.milliseconds) == 2
    assert f"  keras: {request_} failed" in lines


def test_an_update_that_a_contestant_does_not_have_is_left_out():
    (result,) = turns([FakeProcess("ours", Descent())])[0].measure("check", "lamb")
    assert result.skipped == "no LAMB here"
    assert result.milliseconds == []


def result(contestant, milliseconds, difference=0.0, **fields):
    figures = {"first_step_seconds": 1.5, "first_step_seconds_of_the_loop": 0.25}
    figures |= {"state_bytes": 1 << 20}
    figures |= {"peak_bytes": None, "temporary_bytes": 1 << 19}
    floors = [2.0] * len(milliseconds)
    return Result(
        contestant, "check", "adamw", None, milliseconds, floors, difference, figures, **fields
    )


@pytest.fixture
def results():
    return [
        result("ours", [6.0, 5.0, 9.0]),
        result("ours-plain", [2.0, 2.0]),
        result("keras", [8.0]),
        result("keras-jit", [12.0]),
        result("optax", [4.0], difference=math.inf),
        Result("garden", "check", "adamw", skipped="not installed\nat all"),
        Result("keras", "huge", "adamw", None, [1.0], [2.0], 0.0),
    ]


FACTS = {"rounds": 3, "quick": True, "versions": {"ours": {"keras": "3"}}, "left out": {}}


def test_ratios_are_taken_turn_by_turn():
    one = Result("ours", "check", "adamw", None, [6.0, 10.0, 30.0], [1.0, 5.0, 10.0])
    assert one.median == 10
    assert one.to_add == 3
    assert one.to_bytes == pytest.approx(3 * 12 / 28)


def test_the_best_peer_did_the_same_and_is_none_of_ours(results):
    assert report.best_peer(results[0], results).contestant == "keras"
    assert report.best_peer(results[2], results).contestant == "keras-jit"
    assert report.best_peer(results[0], results[:2]) is None


def test_the_tables(results):
    text = report.markdown(machine.facts() | FACTS, results[:6])
    assert "| adamw | 6.0 | 5.0 | 3.00 | 1.29 | keras | 8.0 | **1.33** |" in text
    assert (
        "| keras-jit | 12.0 | 12.0 | 6.00 | 2.57 | 0.67 | 1.50 | 0.25 | 1.0 |  | 0.5 | 0e+00 |"
        in text
    )
    assert "inf **differs**" in text
    assert "- garden: not installed\n" in text
    assert "| adamw | 28 | read g m v w, write m v w |" in text


def test_ours_is_compared_with_ours(results):
    def of(contestant, parameter_list, variant, milliseconds, state):
        figures = {"state_bytes": state}
        return Result(
            contestant, parameter_list, variant, None, [milliseconds], [2.0], 0.0, figures
        )

    found = [
        of("ours", "tiny", "adamw", 9.0, 800),
        of("ours", "tiny_in_199", "adamw", 4.0, 800),
        of("ours-2-devices", "tiny", "adamw", 18.0, 800),
        of("ours", "tiny", "adafactor", 5.0, 6),
        of("keras", "tiny", "adamw", 5.0, 800),
    ]
    assert report.comparisons(found) == [
        ("adamw", "time of `tiny` over `tiny_in_199`, the same bytes", "2.25"),
        ("adamw", "time of two devices over one, each with `tiny`, for as many bytes in all", "1"),
        ("adafactor", "bytes of state over `adamw`'s, `tiny`", "0.0075"),
    ]
    assert report.comparisons(results) == []


def test_the_json_holds_what_was_measured(results):
    read = json.loads(report.as_json(FACTS, results))
    ours = read["results"][0]
    assert ours["milliseconds"] == [6.0, 5.0, 9.0]
    assert ours["best_peer"] == "keras"
    assert ours["to_best_peer"] == pytest.approx(4 / 3)
    assert read["results"][4]["difference"] is None  # infinity is not JSON
    assert read["results"][5]["skipped"].startswith("not installed")


def test_the_chart(tmp_path, results):
    pytest.importorskip("matplotlib", reason="draws the chart")
    path = tmp_path / "check.png"
    chart.draw(results[:6], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    chart.draw(results[5:6], tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


def test_a_section_of_a_page_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x: by x -->\nold\n<!-- end of x -->\nb\n<!-- end of y -->\n")
    for _ in range(2):
        fill(page, "x", "new \\1\n")
        expected = "a\n<!-- x: by x -->\n\nnew \\1\n\n<!-- end of x -->\nb\n<!-- end of y -->\n"
        assert page.read_text() == expected
    with pytest.raises(ValueError, match="must have one section 'y', has 0"):
        fill(page, "y", "new")


@pytest.mark.parametrize("section", ["updates", "configs", "trainer"])
def test_the_page_about_performance_has_the_sections(section, tmp_path):
    copy = tmp_path / "performance.md"
    copy.write_text((ROOT / "docs" / "performance.md").read_text())
    fill(copy, section, "figures")
    assert "figures" in copy.read_text()


def test_options():
    options = command.parse(["--only", "ours,keras", "--python", "garden=/g/python"])
    assert options.only == ["ours", "keras"]
    assert "check" not in options.lists
    assert options.variants == list(VARIANTS)
    assert command.interpreter_of("garden-jit", options.python) == "/g/python"
    assert command.interpreter_of("keras", options.python) == sys.executable
    both = [("ours", "/a"), ("ours-torch", "/b")]
    assert command.interpreter_of("ours-torch", both) == "/b"
    assert command.interpreter_of("ours-plain", both) == "/a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "ours,kears"], "unknown: kears; there are ours"),
        (["--lists", "bert"], "unknown: bert"),
        (["--python", "/usr/bin/python"], "must be CONTESTANT=PATH"),
        (["--python", "gaarden=/g/python"], "must be CONTESTANT=PATH"),
        (["--rounds", "0"], "--rounds must be >= 1"),
    ],
)
def test_wrong_options_are_errors(arguments, message, capsys):
    with pytest.raises(SystemExit):
        command.parse(arguments)
    assert message in capsys.readouterr().err


def test_a_process_that_cannot_be_loaded_says_why(tmp_path):
    # An interpreter in isolated mode finds none of this project's files.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I "$@"\n')
    python.chmod(0o755)
    process = Process("ours", str(python))
    with pytest.raises(WorkerError, match="No module named"):
        process.start()
    process.close()
    assert not process.alive


def test_a_process_that_does_not_answer_is_ended(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec cat\n")
    python.chmod(0o755)
    with Process("ours", str(python), timeout=0.1) as process:
        with pytest.raises(WorkerError, match=r"`load` took more than 0.1 s"):
            process.start()
        assert not process.alive
        with pytest.raises(WorkerError, match="no process for `finish`"):
            process.ask("finish")


def test_an_interpreter_that_is_not_there_is_named(tmp_path):
    process = Process("ours", str(tmp_path / "python"))
    with pytest.raises(WorkerError, match="No such file"):
        process.start()
    process.close()


@pytest.mark.slow
def test_processes_end_to_end(tmp_path, capsys):
    arguments = ["--only", "ours,keras", "--lists", "check", "--variants", "adamw,lars"]
    command.main([*arguments, "--rounds", "2", "--quick", "--output", str(tmp_path)])
    assert "### check: 5 tensors, 0.0 M parameters" in capsys.readouterr().out
    adamw, keras_adamw, _, keras_lars = json.loads((tmp_path / "benchmark.json").read_text())[
        "results"
    ]
    assert adamw["skipped"] is None
    # Two moments for 43,833 weights, the rate and the count.
    assert adamw["figures"]["state_bytes"] == pytest.approx(2 * 4 * 43_833, abs=64)
    assert keras_adamw["difference"] <= TOLERANCE
    assert keras_lars["skipped"] == "Keras has no lars"


PEERS = [
    ("keras", None),
    ("keras-jit", None),
    ("torch-foreach", "torch"),
    ("torch-fused", "torch"),
    ("ours-torch", "torch"),
    ("ours-jax", "optax"),
    ("optax", "optax"),
]


NEWER = ("ademamix", "adopt", "radam", "stable_adamw", "schedule_free_adamw", "prodigy", "soap")
# What there is not; also said in the tables.
WITHOUT = {
    *itertools.product(["keras", "keras-jit"], ["lars", "nadam"]),
    *itertools.product(["torch-foreach", "torch-fused"], ["lamb", "lars", "lion"]),
    *itertools.product(["torch-fused"], ["adafactor", "nadam", "adamax", "rmsprop", "radam"]),
    *itertools.product(["optax"], ["nadam", "stable_adamw", "soap"]),
    *itertools.product(["keras", "keras-jit"], NEWER),
    *itertools.product(["torch-foreach", "torch-fused"], ["muon", *NEWER]),
} - {("torch-foreach", "radam")}

# What is measured of packages that have one of these, or few.
OTHERS = [
    ("prodigyopt", "prodigy"),
    ("pytorch_optimizer", "ademamix"),
    ("pytorch_optimizer", "prodigy"),
    ("schedulefree", "schedule_free_adamw"),
]


@pytest.fixture(scope="module")
def our_weights(tmp_path_factory):
    """Returns a function from a variant to the file of our weights after five updates."""
    folder = tmp_path_factory.mktemp("ours")

    def weights_of(variant):
        path = folder / f"{variant}.npz"
        if not path.exists():
            Worker(load("ours")).check(variant, 5, str(path))
        return path

    return weights_of


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("contestant", "module"), PEERS)
def test_contestants_do_the_same_as_ours(contestant, module, variant, our_weights, tmp_path):
    if module is not None:
        pytest.importorskip(module, reason="a contestant's framework")
    peer = FakeProcess(contestant, load(contestant))
    path = tmp_path / "peer.npz"
    if (contestant, variant) in WITHOUT:
        with pytest.raises(WorkerError, match="has no|does not have it"):
            peer.ask("check", variant=variant, steps=5, path=str(path))
        return
    peer.ask("check", variant=variant, steps=5, path=str(path))
    assert difference(np.load(our_weights(variant)), np.load(path)) <= VARIANTS[variant].tolerance


def difference(ours, theirs):
    """Returns how far weights are from ours, as a part of the longest way."""
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        assert np.isfinite(theirs[name]).all()
    start = {f"weight/{tensor.name}": tensor.weights() for tensor in parameters("check")}
    way = max(np.abs(ours[name] - value).max() for name, value in start.items())
    return max(np.abs(ours[name] - theirs[name]).max() for name in ours) / way


@pytest.mark.slow
@pytest.mark.parametrize(("module", "variant"), OTHERS)
def test_packages_for_pytorch_do_the_same_as_ours(module, variant, our_weights, tmp_path):
    pytest.importorskip(module, reason="a contestant")
    FakeProcess(module, load(module.replace("_", "-"))).ask(
        "check", variant=variant, steps=5, path=str(tmp_path / "peer.npz")
    )
    found = difference(np.load(our_weights(variant)), np.load(tmp_path / "peer.npz"))
    assert found <= VARIANTS[variant].tolerance


@pytest.mark.slow
def test_muon_of_torch_differs_by_its_bfloat16(our_weights, tmp_path):
    pytest.importorskip("torch", reason="a contestant's framework")
    path = tmp_path / "peer.npz"
    FakeProcess("torch-muon", load("torch-muon")).ask(
        "check", variant="muon", steps=5, path=str(path)
    )
    assert TOLERANCE < difference(np.load(our_weights("muon")), np.load(path)) < 0.1


def test_every_contestant_is_described():
    for name, entry in CONTESTANTS.items():
        assert entry.what, name
        assert entry.ours == name.startswith("ours")
