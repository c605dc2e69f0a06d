"""Every benchmark, the question that it answers and where the answer stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """A row of the table.

    Attributes:
        name: it runs as `python -m benchmarks.NAME`.
        question: what it answers, in one line.
        answer: the published table, or the JSON where there is none; a path within benchmarks/.
    """

    name: str
    question: str
    answer: str

    @property
    def command(self) -> str:
        return f"python -m benchmarks.{self.name}"

    @property
    def markdown(self) -> str:
        """Its row in README.md."""
        return f"| {self.question} | [{self.answer}]({self.answer}) | `{self.command}` |"


BENCHMARKS = (
    Benchmark("demo", "What does the whole method give on one network, and beside other ways to prune?",
              "demo/README.md"),
    Benchmark("accuracy", "What do blocks, single weights and filters cost in accuracy, fine-tuned alike?",
              "accuracy/README.md"),
    Benchmark("latency", "How fast is a pruned network beside other engines?", "latency/README.md"),
    Benchmark("threads", "How much faster are two threads than one?", "threads/README.md"),
    Benchmark("arm", "How many instructions does an inference take on ARM, ours and other engines'?", "arm/README.md"),
    Benchmark("arm.mca", "How many cycles do the inner loops take on ARM cores?", "arm/README.md"),
    Benchmark("arm.winograd", "When does Winograd's algorithm take fewer instructions on ARM?",
              "arm/results/winograd.json"),
    Benchmark("networks", "Which networks compile, and are their outputs right?", "networks/results/networks.md"),
    Benchmark("networks.tasks", "How fast, and right, are networks of other tasks and with attention?",
              "networks/results/tasks.md"),
    Benchmark("rearrangement.kept_l1", "How much of the L1 norm does moving channels first keep?",
              "rearrangement/README.md"),
    Benchmark("rearrangement.bound", "How much of the L1 norm can no arrangement exceed?", "rearrangement/README.md"),
    Benchmark("rearrangement.networks", "Which networks can be rearranged, and what is refused?",
              "rearrangement/README.md"),
    Benchmark("repair", "What does each step of repair without labels win back?", "repair/README.md"),
    Benchmark("density", "How many zero blocks does a layer need before skipping them pays?",
              "density/results/density.json"),
    Benchmark("winograd", "When is Winograd's algorithm faster than direct sums on x86?",
              "winograd/results/winograd.json"),
    Benchmark("transposed", "How fast are transposed convolutions, dense and pruned, beside ONNX Runtime's?",
              "transposed/results/transposed.json"),
    Benchmark("tune", "What does tuning bring over the default tiles?", "tune/results/avx2.json"),
    Benchmark("experiment", "Which pruner does NNI find best at equal work, and does a search under a latency pay?",
              "experiment/README.md"),
    Benchmark("filters", "Which networks do NNI's filter pruners really make smaller?", "filters/README.md"),
    Benchmark("onnx_backend", "How many of the ONNX project's own backend tests are right?",
              "onnx_backend/results/onnx_backend.json"),
    Benchmark("fuzz", "What does the package make of damaged files?", "fuzz/results/fuzz.json"),
    Benchmark("fuzz.networks", "Are random networks computed right, and what became of what was found?",
              "fuzz/results/networks.json"),
)
