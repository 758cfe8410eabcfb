"""Pictures that `attend` draws (`--plot`), read back by PNG's specification."""

import struct
import unittest
import zlib

import numpy as np

import cli_harness


def read_chunks(path):
    """((width, height), the image's filtered lines), by the specification: 8-bit RGB, not interlaced, every CRC right."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, body = 8, b""
    while position < len(data):
        (length,), kind = struct.unpack(">I", data[position : position + 4]), data[position + 4 : position + 8]
        chunk = data[position + 8 : position + 8 + length]
        (crc,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert crc == zlib.crc32(kind + chunk), kind
        if kind == b"IHDR":
            width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", chunk)
            assert (depth, color, interlace) == (8, 2, 0)
        body += chunk if kind == b"IDAT" else b""
        position += 12 + length
    return (width, height), np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + 3 * width)


def read_png(path):
    """[height, width, 3]"""
    (width, height), raw = read_chunks(path)
    lines = [[0] * (width * 3)]
    for row in raw.tolist():
        lines.append(unfilter(row[0], row[1:], lines[-1]))
    return np.array(lines[1:], np.uint8).reshape(height, width, 3)


def unfilter(kind, line, above):
    """One line of numbers; `kind` is the filter's number in the specification."""
    if kind == 0:
        return line
    if kind == 2:
        return [(x + b) % 256 for x, b in zip(line, above, strict=True)]
    for i in range(len(line)):
        left, corner = (line[i - 3], above[i - 3]) if i >= 3 else (0, 0)
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            to_left, to_above = abs(above[i] - corner), abs(left - corner)
            to_corner = abs(left + above[i] - 2 * corner)
            guess = left if to_left <= min(to_above, to_corner) else above[i] if to_above <= to_corner else corner
        line[i] = (line[i] + guess) % 256
    return line


INK = (38, 38, 46)  # Of frames, axes and labels.
MASKED = (228, 228, 234)


class PlotTest(cli_harness.CliTestCase):
    def setUp(self):
        super().setUp()
        self.plot = self.directory / "weights.png"
        self.x = self.save("x.npy", self.random(4, 3))

    def draw(self, *flags, file=None):
        self.attend_ok("compute", "--input", file or self.x, "--plot", self.plot, *flags)
        return read_png(self.plot)

    def labels(self, *lines):
        path = self.directory / "labels.txt"
        path.write_text("".join(line + "\n" for line in lines))
        return path

    def frames(self, image):
        """(top, left, bottom, right) of the map, and the columns of the colour bar: the longest lines in ink."""
        ink = (image == INK).all(axis=2)
        lines = np.flatnonzero(ink.sum(axis=0) > 200)
        groups = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
        self.assertEqual(len(groups), 4, "two frames")
        marked = np.flatnonzero(ink[:, groups[0][0]])
        return (marked[0], groups[0][-1], marked[-1], groups[1][0]), (groups[2][0], groups[3][-1])

    def cells(self, image, size=4):
        """A pixel of each cell, away from the number in its middle."""
        (top, left, bottom, right), _ = self.frames(image)
        rows = (top + (np.arange(size) + 0.15) * (bottom - top) / size).astype(int)
        columns = (left + (np.arange(size) + 0.15) * (right - left) / size).astype(int)
        return image[np.ix_(rows, columns)].astype(int)

    def test_the_picture_shows_the_weights_where_they_are(self):
        x = self.save("x.npy", np.ones((4, 3), np.float32))
        for row, column in ((1, 3), (3, 2)):
            with self.subTest((row, column)):
                bias = np.zeros((4, 4), np.float32)
                bias[row, column] = 9
                light = self.cells(self.draw("--bias", self.save("b.npy", bias), file=x)).sum(axis=2)
                self.assertEqual(np.unravel_index(light.argmax(), light.shape), (row, column))

    def test_masked_cells_have_a_colour_of_their_own(self):
        cells = self.cells(self.draw("--causal"))
        grey = np.abs(cells - MASKED).max(axis=2) <= 30  # Hatched.
        np.testing.assert_array_equal(grey, ~np.tri(4, dtype=bool))

    def test_a_logarithmic_scale_lightens_small_weights(self):
        x = self.save("x.npy", np.ones((4, 3), np.float32))
        bias = self.save("b.npy", np.float32([[0, 2, 4, 8]]))
        linear, log = (self.cells(self.draw("--bias", bias, "--color-scale", scale, file=x)).sum(axis=2) for scale in ("linear", "log"))
        self.assertTrue((log[:, 1:3] > linear[:, 1:3] + 60).all(), (linear, log))
        np.testing.assert_array_equal(log[:, [0, 3]], linear[:, [0, 3]], "both ends stay")

    def test_small_maps_have_numbers_in_their_cells(self):
        image = self.draw()
        (top, left, bottom, right), _ = self.frames(image)
        half_row, half_column = (bottom - top) // 8, (right - left) // 8
        for row in range(4):
            for column in range(4):
                y, x = top + (2 * row + 1) * half_row, left + (2 * column + 1) * half_column
                middle = image[y - 12 : y + 12, x - 30 : x + 30].reshape(-1, 3)
                self.assertGreater(len(np.unique(middle, axis=0)), 3, f"nothing is written in cell {row}, {column}")

    def test_axes_carry_the_labels_that_are_given(self):
        plain = self.draw()
        named = self.draw("--labels", self.labels("a", "naïve", "tokenisation", "x"))
        for image in (plain, named):
            (top, left, bottom, right), (_, bar_right) = self.frames(image)
            ink = (image < 128).all(axis=2)
            self.assertGreater(ink[: top - 4, left:right].sum(), 100, "the title")
            self.assertGreater(ink[top:bottom, bar_right + 12 :].sum(), 100, "the bar's numbers")
            for token in range(4):
                row, column = (int(start + (token + 0.5) * (end - start) / 4) for start, end in ((top, bottom), (left, right)))
                self.assertGreater(ink[row - 12 : row + 12, left - 60 : left - 12].sum(), 10, f"label of query {token}")
                self.assertGreater(ink[bottom + 14 : bottom + 40, column - 20 : column + 20].sum(), 10, f"label of key {token}")
        self.assertGreater(self.frames(named)[0][1], self.frames(plain)[0][1] + 60, "long labels have room")

    def test_labels_that_do_not_fit_are_refused(self):
        k = self.save("k.npy", self.random(5, 3))
        cross = ("sdpa", "--query", self.x, "--key", k, "--value", k, "--plot", self.plot)
        five = self.directory / "five.txt"
        five.write_text("a\nb\nc\nd\ne\n")
        four = self.labels("a", "b", "c", "d")
        run = self.attend("compute", "--input", self.x, "--show", "--labels", five)
        self.assert_fails(run, 2, "--labels has 5 lines, but there are 4 queries")
        self.assert_fails(self.attend(*cross, "--labels", four), 2, "--key-labels")
        self.assert_fails(self.attend(*cross, "--labels", four, "--key-labels", four), 2, "--key-labels has 4 lines, but there are 5 keys")
        self.attend_ok(*cross, "--labels", four, "--key-labels", five)
        self.assert_fails(self.attend(*cross, "--labels", self.labels("a", "b\x1b[0m", "c", "d")), 2, "line 2")

    def test_the_ending_says_which_format(self):
        plot = self.directory / "weights.svg"
        self.attend_ok("compute", "--input", self.x, "--plot", plot, "--causal")
        data = plot.read_bytes()
        self.assertTrue(data.startswith(b"<?xml"), data[:20])
        self.assertIn(b"</svg>", data[-20:])

    def test_without_a_font_there_are_no_empty_boxes(self):
        nothing = self.directory / "fonts.conf"
        nothing.write_text("<fontconfig></fontconfig>")
        flags = ("compute", "--input", self.x, "--plot", self.plot)
        self.assertIn("fonts-dejavu-core", self.attend(*flags, env={"FONTCONFIG_FILE": str(nothing)}).err)
        self.assertFalse(self.plot.exists())
        run = self.attend(*flags, "--labels", self.labels("a", "b", "\U0001fae8", "d"), "--plot-font", "DejaVu Sans")
        self.assertIn("lacks a character of '\U0001fae8'", run.err)

    def test_pictures_of_other_shapes_are_valid_too(self):
        for heads, queries, keys in ((1, 1, 1), (3, 7, 33), (20, 2, 2), (1, 1, 900), (1, 900, 2)):
            with self.subTest((heads, queries, keys)):
                q, k = self.save("q.npy", self.random(heads, queries, 4)), self.save("k.npy", self.random(heads, keys, 4))
                run = self.attend_ok("sdpa", "--query", q, "--key", k, "--value", k, "--per-head", "--plot", self.plot)
                (width, height), _ = read_chunks(self.plot)
                self.assertLess(max(height, width), 2500)
                self.assertEqual("leaves out 4 further maps" in run.err, heads == 20)


if __name__ == "__main__":
    unittest.main()
