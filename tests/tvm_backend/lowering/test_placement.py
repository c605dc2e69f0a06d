"""Weights and activations at fixed places of one memory, bound to the network once."""

from __future__ import annotations

import numpy as np
import pytest

from onexn_plugins.tvm_backend.processors import find_target

tvm = pytest.importorskip("tvm")
from tvm import relax  # noqa: E402

from onexn_plugins.tvm_backend.lowering.passes import plan_memory  # noqa: E402
from onexn_plugins.tvm_backend.lowering.placement import ALIGNMENT, NETWORK, place  # noqa: E402
from onexn_plugins.tvm_backend.output.tvm_library import compile_library  # noqa: E402

RANDOM = np.random.default_rng(0)
WEIGHT, SCALE = RANDOM.standard_normal((16, 12), np.float32), RANDOM.standard_normal((5, 1), np.float32)
X = RANDOM.standard_normal((5, 12), np.float32)


@pytest.fixture(scope="module")
def host():
    return tvm.target.Target(find_target("host").tvm)


@pytest.fixture(scope="module")
def module():
    """Two weights used twice each, hidden activations, one of them reshaped, and two outputs."""
    x = relax.Var("x", relax.TensorType(X.shape, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            weight = relax.const(WEIGHT)
            hidden = builder.emit(relax.op.nn.softmax(relax.op.matmul(x, relax.op.permute_dims(weight))))
            folded = builder.emit(relax.op.reshape(hidden, (10, 8)))
            product = builder.emit(relax.op.matmul(relax.op.reshape(folded, (5, 16)), weight))
            scale = relax.const(SCALE)
            scaled = [relax.op.multiply(tensor, scale) for tensor in (product, hidden)]
            output = builder.emit_output(relax.Tuple(scaled))
        builder.emit_func_output(output)
    return builder.finalize()


def expected(x):
    product = x @ WEIGHT.T
    hidden = np.exp(product - product.max(1, keepdims=True))
    hidden /= hidden.sum(1, keepdims=True)
    return hidden @ WEIGHT * SCALE, hidden * SCALE


def test_it_computes_the_same(module, host):
    network = compile_library(module, find_target("host"))
    for x in (X, 2 * X):
        for output, reference in zip(network.run(tvm.runtime.tensor(x)), expected(x), strict=True):
            np.testing.assert_allclose(output.numpy(), reference, atol=1e-5)


def test_weights_come_first_and_nothing_overlaps(module, host):
    placed = place(plan_memory(module, host))
    assert len(placed.weights) == 2
    ends = [place_ + values.nbytes for place_, values in placed.weights]
    assert all(place_ % ALIGNMENT == 0 for place_, _ in placed.weights)
    assert all(end <= start for end, (start, _) in zip(ends, placed.weights[1:], strict=False))
    assert max(ends) <= placed.weight_bytes < placed.memory_bytes


def test_a_run_makes_no_tensor_but_outputs(module, host):
    """What is bound once need not be made, viewed and checked in each run."""
    called = []

    def note(_function, name, before, *_):
        called.extend([name] * before)
        return 0

    network = compile_library(module, find_target("host"))
    network.run(tvm.runtime.tensor(X))
    network.machine.set_instrument(note)
    network.run(tvm.runtime.tensor(X))
    assert called.count("vm.builtin.alloc_tensor") <= 2
    assert called.count("vm.builtin.check_tensor_info") <= 1
    assert not {"vm.builtin.reshape", "runtime.TVMTensorCreateView"} & set(called)


def test_outputs_have_memory_of_their_own(module, host):
    network = compile_library(module, find_target("host"))
    outputs = network.run(tvm.runtime.tensor(X))
    network.run(tvm.runtime.tensor(3 * X))
    for output, reference in zip(outputs, expected(X), strict=True):
        np.testing.assert_allclose(output.numpy(), reference, atol=1e-5)


def test_kernels_keep_their_names(module, host):
    placed = place(plan_memory(module, host))
    calls = [binding.value.op for block in placed.module[NETWORK].body.blocks for binding in block.bindings
             if isinstance(binding.value, relax.Call)]
    named = {str(operator.global_symbol) for operator in calls if isinstance(operator, relax.ExternFunc)}
    assert named
    assert named <= {variable.name_hint for variable in placed.module.get_global_vars()}


def test_a_network_without_memory(host):
    x = relax.Var("x", relax.TensorType((3,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(relax.op.nn.relu(x))
        builder.emit_func_output(output)
    x = tvm.runtime.tensor(np.float32([-1, 0, 2]))
    one, other = (compile_library(builder.finalize(), find_target("host")).run(x) for _ in range(2))
    assert one.numpy().tolist() == other.numpy().tolist() == [0, 0, 2]
