"""RoiAlign: the mean or maximum of points between pixels, a grid of them in each cell of a region."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, constant
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

# Before this opset regions were not moved by half a pixel.
HALF_PIXEL_SINCE = 16


def roi_align(builder: relax.BlockBuilder, graph: Graph, node: Node,
              inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Regions and their images may be known at run time only; float32 alone."""
    spec = graph.specs[node.output]
    if str(spec.dtype) != "float32":
        return None
    batch, channels, height, width = graph.shape(node.inputs[0])
    regions, _, rows, columns = spec.shape
    cell = _Cells(graph, node, (height, width), (rows, columns))

    def body(x: Buffer, rois: Buffer, places: Buffer, y: Buffer) -> None:
        best = T.alloc_buffer((1,), "float32", scope="global")
        with T.serial(0, regions) as region:
            lines = [cell.line(rois, region, axis) for axis in (0, 1)]
            with T.serial(0, channels) as channel, T.serial(0, rows) as row, T.serial(0, columns) as column:
                # No number reads beyond the last image.
                image = tirx.max(tirx.min(places[region], batch - 1), 0)
                plane = T.cast(image, "int32") * channels + channel
                T.buffer_store(best, constant(0), [0])
                with T.serial(0, lines[0].points) as down, T.serial(0, lines[1].points) as across:
                    first = tirx.all(down.equal(0), across.equal(0))
                    corners = cell.corners(x, plane, lines[0].at(row, down), lines[1].at(column, across))
                    T.buffer_store(best, cell.combined(best[0], corners, first), [0])
                count = tirx.max(lines[0].points * lines[1].points, 1)
                value = best[0] if cell.takes_maximum else best[0] / T.cast(count, "float32")
                T.buffer_store(y, value, [((region * channels + channel) * rows + row) * columns + column])

    return call(builder, "roi_align", body, inputs, [spec])


class _Line:
    """One axis of a region: where it starts, how large its cells are and how many points each has."""

    def __init__(self, start: Expr, size: Expr, points: Expr) -> None:
        self.start, self.size, self.points = start, size, points

    def at(self, cell: Expr, point: Expr) -> Expr:
        """Where that point of that cell lies."""
        inside = (T.cast(point, "float32") + constant(0.5)) * self.size / T.cast(self.points, "float32")
        return T.bind(self.start + T.cast(cell, "float32") * self.size + inside)


class _Cells:
    """The operator's attributes, and expressions that follow from them."""

    def __init__(self, graph: Graph, node: Node, image: tuple[int, int], cells: tuple[int, int]) -> None:
        self.image, self.cells = image, cells
        self.takes_maximum = node.text("mode", "avg") == "max"
        self.scale, self.points = node.attributes.get("spatial_scale", 1.0), node.attributes.get("sampling_ratio", 0)
        mode = node.text("coordinate_transformation_mode", "half_pixel")
        self.moved = graph.opset >= HALF_PIXEL_SINCE and mode == "half_pixel"

    def line(self, rois: Buffer, region: Expr, axis: int) -> _Line:
        """Axis 0 are rows; a region is (x1, y1, x2, y2)."""
        offset = constant(0.5 if self.moved else 0.0)
        scale = constant(self.scale)
        start, end = (T.bind(rois[region * 4 + place] * scale - offset) for place in (1 - axis, 3 - axis))
        length = end - start if self.moved else tirx.max(end - start, constant(1))
        size = T.bind(length / constant(self.cells[axis]))
        points = tirx.const(self.points, "int32") if self.points else T.cast(tirx.ceil(size), "int32")
        return _Line(start, size, T.bind(points))

    def corners(self, x: Buffer, plane: Expr, row: Expr, column: Expr) -> list[Expr]:
        """The four pixels around a point, weighted; 0 for a point outside the image."""
        height, width = self.image
        inside = T.bind(tirx.all(*(tirx.all(at >= constant(-1), at <= constant(size))
                                   for at, size in ((row, height), (column, width)))))
        return [tirx.Select(inside, x[(plane * height + down) * width + across] * (below * behind), constant(0))
                for down, below in self._neighbours(row, height) for across, behind in self._neighbours(column, width)]

    def combined(self, best: Expr, corners: list[Expr], first: Expr) -> Expr:
        """With one more point: the sum of all, or the largest of all weighted pixels, as onnxruntime has it."""
        if not self.takes_maximum:
            return best + sum(corners[1:], corners[0])
        largest = corners[0]
        for corner in corners[1:]:
            largest = tirx.max(largest, corner)
        largest = T.bind(largest)
        return tirx.Select(first, largest, tirx.max(best, largest))

    def _neighbours(self, at: Expr, size: int) -> list[tuple[Expr, Expr]]:
        """The pixels before and behind, kept in the image, and their shares."""
        clamped = T.bind(tirx.min(tirx.max(at, constant(0)), constant(size - 1)))
        low = T.bind(T.cast(clamped, "int32"))
        share = T.bind(clamped - T.cast(low, "float32"))
        return [(low, constant(1) - share), (tirx.min(low + 1, size - 1), share)]
