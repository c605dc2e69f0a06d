"""Static programs: the same numbers as TVM's virtual machine, and plain words for what they cannot do."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.output.linker import archiver, static_compiler
from onexn_plugins.tvm_backend.processors import find_target
from tests.emulation.programs import run_program

tvm = pytest.importorskip("tvm")
from tvm import relax  # noqa: E402

from onexn_plugins.tvm_backend.output.artefact import LIBRARY, read, write  # noqa: E402
from onexn_plugins.tvm_backend.output.static_program.build import PROGRAM_FILES, compile_program  # noqa: E402
from onexn_plugins.tvm_backend.output.static_program.program import ALIGNMENT  # noqa: E402
from onexn_plugins.tvm_backend.output.tvm_library import compile_library  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="static programs are for Linux")

INPUTS = {"image": (1, 3, 9, 7), "ödd \"name\"\n": (4, 35)}
OUTPUTS = {"probabilities": (2, 70), "image": (1, 4, 7, 5), "weights": (4, 3, 3, 3)}


def tensors(shapes):
    return [{"name": name, "shape": list(shape), "dtype": "float32"} for name, shape in shapes.items()]


METADATA = {"inputs": tensors(INPUTS), "outputs": tensors(OUTPUTS), "layers": []}


@pytest.fixture(scope="module")
def module():
    """Two inputs and three outputs, a reshaped view before and after a kernel, memory that is used again."""
    random = np.random.default_rng(0)
    weight, small = (random.standard_normal(shape, np.float32) for shape in ((4, 3, 3, 3), (4, 4, 1, 1)))
    image, rows = (relax.Var(f"input_{i}", relax.TensorType(shape, "float32")) for i, shape in
                   enumerate(INPUTS.values()))
    builder = relax.BlockBuilder()
    with builder.function("main", [image, rows]):
        with builder.dataflow():
            hidden = builder.emit(relax.op.nn.relu(relax.op.nn.conv2d(image, relax.const(weight))))
            softmax = builder.emit(relax.op.nn.softmax(relax.op.add(relax.op.reshape(hidden, (4, 35)), rows)))
            mixed = builder.emit(relax.op.nn.conv2d(hidden, relax.const(small)))
            mixed = builder.emit(relax.op.nn.conv2d(relax.op.tanh(mixed), relax.const(small)))
            copied = relax.op.add(relax.const(weight), relax.const(np.float32(0)))
            output = builder.emit_output(relax.Tuple([relax.op.reshape(softmax, (2, 70)), mixed, copied]))
        builder.emit_func_output(output)
    return builder.finalize()


@pytest.fixture(scope="module")
def static_host():
    return dataclasses.replace(find_target("host"), tvm_runtime=False)


@pytest.fixture(scope="module")
def network(module, static_host):
    return compile_program(module, static_host)


@pytest.fixture(scope="module")
def saved(network, static_host, tmp_path_factory):
    return read(write(tmp_path_factory.mktemp("static") / "network", network, static_host, METADATA))


@pytest.fixture
def arrays():
    random = np.random.default_rng(1)
    return [random.standard_normal(shape, np.float32) for shape in INPUTS.values()]


def expected(module, arrays):
    host = compile_library(module, find_target("host"))
    return [tensor.numpy() for tensor in host.run(*map(tvm.runtime.tensor, arrays))]


def test_it_computes_what_the_virtual_machine_does(module, saved, arrays, tmp_path):
    outputs, _ = run_program(saved, tmp_path, arrays)
    for output, reference in zip(outputs, expected(module, arrays), strict=True):
        np.testing.assert_allclose(output, reference, atol=1e-6)


def test_another_run_in_the_same_process_starts_afresh(saved, arrays, tmp_path):
    once, _ = run_program(saved, tmp_path, arrays)
    again, said = run_program(saved, tmp_path, arrays, options=["--repeat", "3"])
    assert said.startswith("median ")
    assert said.endswith("of 3 runs\n")
    for left, right in zip(once, again, strict=True):
        np.testing.assert_array_equal(left, right)


def test_memory_is_planned(network):
    program = network.program
    offsets = {tensor.offset for tensor in program.tensors}
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    for tensor in program.tensors:
        limit = program.arena_bytes if tensor.memory == "arena" else len(program.constants)
        assert tensor.offset + tensor.nbytes <= limit


def test_a_program_of_ones_own(saved, static_host, arrays, tmp_path):
    (tmp_path / "own.c").write_text(
        '#include <stdio.h>\n#include "network.h"\n'
        "int main(void) { printf(\"%d %d %s %zu\", onexn_num_inputs, onexn_num_outputs, onexn_outputs[1].name,"
        " onexn_outputs[1].bytes); return onexn_error()[0]; }\n")
    command = [*static_compiler(static_host), f"-I{saved.folder}", "-o", str(tmp_path / "own"),
               str(tmp_path / "own.c"), str(saved.folder / "libnetwork.a"), "-lm"]
    subprocess.run(command, check=True)
    said = subprocess.run([str(tmp_path / "own")], capture_output=True, text=True, check=True).stdout
    assert said == f"2 3 image {4 * 4 * 7 * 5}"


def test_its_usage_names_files_and_shapes(saved):
    done = subprocess.run([str(saved.folder / "network")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for line in ("input image: float32 [1, 3, 9, 7], 756 bytes", "output probabilities: float32 [2, 70], 560 bytes"):
        assert line in done.stderr


@pytest.mark.parametrize(("damage", "reason"), [
    (lambda folder: (folder / "input_1.bin").unlink(), "cannot be opened"),
    (lambda folder: (folder / "input_1.bin").write_bytes(b"1234"), "is not as long as its tensor"),
    (lambda folder: (folder / "input_1.bin").write_bytes(bytes(4 * 35 * 4 + 1)), "is not as long as its tensor"),
])
def test_bad_input_files(saved, tmp_path, arrays, damage, reason):
    run_program(saved, tmp_path, arrays)
    for output in tmp_path.glob("output_*"):
        output.unlink()
    damage(tmp_path)
    files = [*(f"input_{i}.bin" for i in range(2)), *(f"output_{i}.bin" for i in range(3))]
    done = subprocess.run([str(saved.folder / "network"), *files], cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stderr) == (2, f"input_1.bin: {reason}\n")
    assert not list(tmp_path.glob("output_*"))


@pytest.mark.parametrize("count", ["0", "-1", "many", "9999999999"])
def test_a_senseless_repeat(saved, count):
    done = subprocess.run([str(saved.folder / "network"), *"abcde", "--repeat", count], capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stderr) == (2, "--repeat: takes a number from 1 to 1000000\n")


def test_what_needs_the_virtual_machine_is_refused(static_host):
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.print(x, format="{}")))
    with pytest.raises(OneXNError, match=r"operator 'relax\.run\.print': needs TVM's virtual machine"):
        compile_program(builder.finalize(), static_host)


def test_another_system_is_refused(module):
    with pytest.raises(OneXNError, match=r"apple-m1.*static programs are for Linux, not darwin"):
        compile_program(module, find_target("apple-m1"))


def test_its_artefact_is_whole_and_has_no_library(saved):
    assert not (saved.folder / LIBRARY).exists()
    with pytest.raises(OneXNError, match="is a program for 'host', no library for TVM's runtime"):
        _ = saved.library


def test_a_boards_program_is_not_for_here(module, tmp_path):
    pytest.importorskip("ziglang")
    board = find_target("cortex-a7")
    write(tmp_path / "network", compile_program(module, board), board, METADATA)
    with pytest.raises(OneXNError, match=r"was compiled for 'cortex-a7'.*scp and start 'network'"):
        read(tmp_path / "network")


@pytest.mark.parametrize("name", PROGRAM_FILES)
def test_damage_and_loss_are_seen(saved, tmp_path, name):
    copy = shutil.copytree(saved.folder, tmp_path / "copy")
    with open(copy / name, "ab") as file:
        file.write(b"\0")
    with pytest.raises(OneXNError, match="is damaged"):
        read(copy)
    (copy / name).unlink()
    with pytest.raises(OneXNError, match=f"it has no {name}"):
        read(copy)


def test_the_archiver_goes_with_the_compiler(monkeypatch):
    from onexn_plugins.tvm_backend.output import linker

    for compiler, expected_archiver in [(["arm-linux-gnueabihf-gcc"], ["arm-linux-gnueabihf-ar"]), (["cc"], ["ar"]),
                                        (["python", "-m", "ziglang", "cc", "-target", "arm-linux-gnueabihf.2.28"],
                                         ["python", "-m", "ziglang", "ar"])]:
        monkeypatch.setattr(linker, "compiler", lambda target, compiler=compiler: list(compiler))
        assert archiver(find_target("cortex-a7")) == expected_archiver
