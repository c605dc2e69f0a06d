"""Runs in the emulated machine: one network, so many times, through one engine.

    python run_emulated.py tvm|kernel|ncnn|mnn|xnnpack NETWORK SHAPE RUNS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np


def tvm(path: str, x: np.ndarray) -> Callable[[], object]:
    import tvm
    from tvm.runtime.vm import VirtualMachine

    machine, folder = VirtualMachine(tvm.runtime.load_module(path), tvm.cpu()), Path(path).parent
    memory = np.zeros(json.loads((folder / "metadata.json").read_text())["memory_bytes"], np.uint8)
    weights = np.fromfile(folder / "weights.bin", np.uint8)
    memory[:weights.size] = weights
    main, bound = machine["main"], machine["bind"](tvm.runtime.tensor(memory))
    tensor = tvm.runtime.tensor(x)
    return lambda: main(tensor, bound)


def kernel(path: str, x: np.ndarray) -> Callable[[], object]:
    """One kernel of ours, "kernel.so" in a folder, on x and "arguments.npz"."""
    import tvm

    function = tvm.runtime.load_module(f"{path}/kernel.so")["kernel"]
    with np.load(f"{path}/arguments.npz") as arrays:
        arguments = [tvm.runtime.tensor(array) for array in (x, *(arrays[name] for name in arrays.files))]
    return lambda: function(*arguments)


def ncnn(path: str, x: np.ndarray) -> Callable[[], object]:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(path + ".param") or net.load_model(path + ".bin"):
        raise OSError(f"ncnn cannot load {path}")
    image = ncnn.Mat(x[0])

    def run() -> object:
        extractor = net.create_extractor()
        extractor.input("in0", image)
        return np.array(extractor.extract("out0")[1])

    return run


def mnn(path: str, x: np.ndarray) -> Callable[[], object]:
    import MNN

    settings = {"precision": "high", "backend": "CPU", "numThread": 1}
    runtime = MNN.nn.create_runtime_manager((settings,))
    net = MNN.nn.load_module_from_file(path, [], [], runtime_manager=runtime)
    image = MNN.expr.const(x.copy(), list(x.shape), MNN.expr.NCHW)
    image = MNN.expr.convert(image, MNN.expr.NC4HW4)
    return lambda: net.forward([image])[0].read()


def xnnpack(path: str, x: np.ndarray) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    return interpreter.invoke


if __name__ == "__main__":
    engine, path, shape, runs = sys.argv[1:]
    x = np.random.default_rng(0).standard_normal([int(size) for size in shape.split(",")], np.float32)
    run = {"tvm": tvm, "kernel": kernel, "ncnn": ncnn, "mnn": mnn, "xnnpack": xnnpack}[engine](path, x)
    for _ in range(int(runs)):
        run()
