#!/usr/bin/env python3
"""Tests of how mutants are found and drawn; no mutant is built here."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import typing
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import covering
import cpp_tokens
import mutants
import mutations
import planted
import processes

SOURCES = pathlib.Path(os.environ.get("ATTEND_SOURCE_DIR", mutants.ROOT))


def changed(text):
    """The text after each mutation."""
    return [mutation.apply(text) for mutation in mutations.mutations(text)]


class MutationsTest(unittest.TestCase):
    def test_operators_constants_and_conditions(self):
        found = changed("bool F(int a) {\n  if (a < 8) return true;\n  return a == n && !b;\n}\n")
        for expected in ("if (a <= 8)", "if (a >= 8)", "if (a < 9)", "if (a < 7)", "if (true)", "if (false)", "if (!(a < 8))",
                         "return false;", "return a != n", "return a == n || !b", "&& b;", "return {};"):
            with self.subTest(expected):
                self.assertEqual(sum(expected in text for text in found), 1)
        self.assertEqual(len(found), 12)

    def test_status_and_calls(self):
        found = changed("absl::Status F() {\n  x = std::min(x, y);\n  return absl::OkStatus();\n}\n")
        self.assertEqual(len(found), 3)
        self.assertTrue(any("std::max(x, y)" in text for text in found))
        self.assertTrue(any('return absl::InternalError("mutant");' in text for text in found))
        self.assertTrue(any("{\n  ;\n  return" in text for text in found))

    def test_statements_that_declare_stay_and_expressions_go(self):
        text = "void F() {\n  try {\n  } catch (...) {\n  }\n"
        text += "  MutexLock lock(mu_);\n  Foo<int> a(b);\n  char* c = d;\n  e.f(g);\n  h[i] = j;\n  ++k;\n  continue;\n}\n"
        removed = {m.lines(text)[0] for m in mutations.mutations(text) if m.kind == "statement"}
        self.assertEqual(removed, {"e.f(g);", "h[i] = j;", "++k;", "continue;"})

    def test_what_is_no_code_or_judged_by_the_compiler_stays(self):
        for text in ('// a < 8\n/* a < 8 */\n', '#include <a/b.h>\n#define A \\\n  (b < 8)\n', 'const char* s = "a < 8 // ";\n',
                     'auto r = R"x(a < 8)x";\n', "static_assert(sizeof(a) == 8 && true);\n", "using A = B<8>;\n",
                     "template <int n = 8, bool b = true>\nvoid F();\n", "virtual void F() const = 0;\n",
                     "bool operator==(const A& a);\n", "void F() {\n  log.Write(level, 1 + 2);\n}\n", "char c = '<';\n",
                     "void F() {\n  __builtin_prefetch(a + 8);\n  b.reserve(8);\n}\n"):
            with self.subTest(text):
                self.assertEqual(changed(text), [])

    def test_template_brackets_pointers_and_references_are_no_operators(self):
        for text in ("std::vector<A> a;\n", "T&& F(T* a, const T& b);\n", "Foo(-a, *b, &c);\n", "std::map<A, std::vector<B>> a;\n"):
            with self.subTest(text):
                self.assertEqual([m for m in mutations.mutations(text) if m.kind == "operator"], [])

    def test_a_condition_that_declares_stays(self):
        text = "void F() {\n  if (const auto a = B(); !a.ok()) {\n  }\n}\n"
        self.assertEqual([m.kind for m in mutations.mutations(text)], ["negation"])

    def test_numbers_keep_their_base_and_suffix(self):
        self.assertIn("x = 65u;", changed("x = 64u;"))
        self.assertIn("x = 63u;", changed("x = 64u;"))
        self.assertIn("x = 256;", changed("x = 0xFF;"))
        self.assertIn("x = 1.5f;", changed("x = 0.5f;"))
        self.assertIn("x = (-1);", changed("x = 0;"))
        self.assertEqual(changed("x = 0x1p-3f;"), [])

    def test_a_number_without_room_for_one_more_is_doubled(self):
        self.assertEqual(changed("x = 1e30f;"), ["x = 2e+30f;", "x = 5e+29f;"])

    def test_lines_are_those_that_the_mutation_touches(self):
        text = "a;\nb = (c &&\n     d);\ne;\n"
        (mutation,) = [m for m in mutations.mutations(text) if m.replacement == "||"]
        self.assertEqual((mutation.line(text), mutation.lines(text)), (2, ("b = (c &&", "b = (c ||")))


class TokensTest(unittest.TestCase):
    def test_every_file_of_the_product_is_read_with_its_brackets_in_pairs(self):
        files = [path for folder in ("core", "server", "client", "formats") for path in (SOURCES / folder).rglob("*.[ch]*")
                 if path.suffix in (".cc", ".h")]
        self.assertGreater(len(files), 100)
        for path in files:
            tokens = cpp_tokens.tokenize(path.read_text())
            brackets = [i for i, token in enumerate(tokens) if token.kind == "code" and token.text in "()[]{}"]
            partners = cpp_tokens.match_brackets(tokens)
            pairs = {"(": ")", "[": "]", "{": "}"}
            with self.subTest(str(path)):
                self.assertEqual(sorted(partners), brackets)
                for i in brackets:
                    if tokens[i].text in pairs:
                        self.assertEqual(tokens[partners[i]].text, pairs[tokens[i].text])


class DrawTest(unittest.TestCase):
    TEXTS: typing.ClassVar = {"core/a.cc": "int F() {\n  return a + 1;\n}\n", "core/b.cc": "int G() {\n  return b - 2;\n}\n"}

    def source(self, folder):
        for file, text in self.TEXTS.items():
            path = pathlib.Path(folder, file)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return mutants.Source(pathlib.Path(folder), self.TEXTS)

    def test_the_same_commit_draws_the_same_and_each_mutant_once(self):
        with tempfile.TemporaryDirectory() as folder:
            source = self.source(folder)
            first, again = ([mutant.key for mutant in source.draw("f00d")] for _ in range(2))
            other = [mutant.key for mutant in source.draw("beef")]
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertEqual(sorted(first), sorted(other))
        self.assertEqual(len(set(first)), 8)

    def test_a_survivor_is_found_again_by_its_lines(self):
        with tempfile.TemporaryDirectory() as folder:
            source = self.source(folder)
            self.assertEqual(source.find("core/a.cc", "return a + 1;", "return a - 1;").mutation.replacement, "-")
            self.assertIsNone(source.find("core/a.cc", "return a + 1;", "return a * 1;"))

    def test_every_entry_of_the_list_of_equivalent_mutants_has_a_reason(self):
        for key, reason in mutants.read_equivalent(mutants.HERE / "equivalent.toml").items():
            self.assertGreater(len(reason.split()), 2, key)


class PlantedTest(unittest.TestCase):
    TEXT = "{\n  a(b,  c);\n\ta(b, c);\n  a(b, c);  // d\n}\n"

    def test_a_line_is_planted_at_each_of_its_places_and_nothing_else_changes(self):
        found = planted.places(self.TEXT, "a(b, c);", "a(b, d);")
        self.assertEqual([one.line(self.TEXT) for one in found], [2, 3])
        self.assertEqual(found[0].apply(self.TEXT), self.TEXT.replace("a(b,  c)", "a(b, d)"))
        self.assertEqual(found[1].lines(self.TEXT), ("a(b, c);", "a(b, d);"))

    def test_what_is_no_longer_in_the_code_is_said(self):
        gone = [("core/a.cc", "a(b);", "a(c);"), ("core/b.cc", "a(b, c);", "a(c);")]
        found, missing = planted.find({"core/a.cc": self.TEXT}, [("core/a.cc", "a(b, c);", "a(c);"), *gone])
        self.assertEqual(([file for file, _, _ in found], missing), (["core/a.cc"] * 2, gone))

    def test_each_place_is_judged_by_itself_and_what_was_judged_is_not_again(self):
        class Trial:
            sanitized, ran = None, 0

            def run(self, mutant):
                self.ran += 1
                return {"verdict": "killed", "file": mutant.file, "line": mutant.line, "before": mutant.before, "after": mutant.after}

        found = [mutants.Mutant("core/a.cc", self.TEXT, one) for one in planted.places(self.TEXT, "a(b, c);", "a(b, d);")]
        trial = Trial()
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(mutants, "say"):
            for _ in range(2):
                entries = mutants.run_all(trial, found, 2, {}, pathlib.Path(folder, "results"))
                self.assertEqual([entry["line"] for entry in entries], [2, 3])
        self.assertEqual(trial.ran, 2)

    def test_every_off_by_one_is_in_the_code_and_can_be_planted(self):
        entries = planted.read(mutants.HERE / "off_by_one.toml")
        self.assertEqual(len(set(entries)), len(entries))
        for file, line, mutated in entries:
            with self.subTest(file=file, line=line, mutated=mutated):
                self.assertRegex(file, mutants.PRODUCT)
                text = (SOURCES / file).read_text()
                found = planted.places(text, line, mutated)
                self.assertTrue(found)
                before = cpp_tokens.tokenize(text)
                for mutation in found:
                    tokens = cpp_tokens.tokenize(mutation.apply(text))
                    self.assertNotEqual([one.text for one in before], [one.text for one in tokens])
                    brackets = [one for one in tokens if one.kind == "code" and one.text in "()[]{}"]
                    self.assertEqual(len(cpp_tokens.match_brackets(tokens)), len(brackets))


class CoveringTest(unittest.TestCase):
    def test_tests_are_listed_although_nothing_is_built(self):
        with tempfile.TemporaryDirectory() as folder:
            build = pathlib.Path(folder)
            (build / "b_test.py").write_text("unittest.main()\n")
            (build / "d_test.py").write_text("print('takes no flags')\n")
            (build / "CTestTestfile.cmake").write_text(
                f'add_test([=[a_test]=] "{build}/bin/a_test" "--x")\n'
                "set_tests_properties([=[a_test]=] PROPERTIES  LABELS \"core\")\n"
                f'add_test(b_test "/usr/bin/python3" "{build}/b_test.py")\n'
                "set_tests_properties(b_test PROPERTIES ENVIRONMENT PYTHONPATH=/b"
                " ENVIRONMENT_MODIFICATION PYTHONPATH=path_list_prepend:/a)\n"
                'add_test([=[c_test]=] "/usr/bin/cmake" "-P" "c.cmake")\n'
                f'add_test(d_test "/usr/bin/python3" "{build}/d_test.py")\n')
            tests = covering.list_tests(build)
        self.assertEqual([(test.name, test.target, test.labels) for test in tests],
                         [("a_test", "a_test", ["core"]), ("b_test", None, []), ("d_test", None, [])])
        self.assertEqual(tests[0].command, [f"{build}/bin/a_test", "--x"])
        self.assertEqual(tests[1].command, ["/usr/bin/python3", f"{build}/b_test.py", "--failfast"])
        self.assertEqual(tests[1].environment, {"PYTHONPATH": "/a:/b"})
        self.assertEqual(tests[2].command, ["/usr/bin/python3", f"{build}/d_test.py"])


class ProcessesTest(unittest.TestCase):
    def test_what_hangs_is_killed_with_the_processes_that_it_started(self):
        with tempfile.TemporaryDirectory() as folder:
            log, patience = pathlib.Path(folder, "log"), 1
            while True:
                outcome = processes.run(["sh", "-c", "sleep 1000 & echo $!; wait"], log, patience)
                self.assertIsNone(outcome.code)
                if child := log.read_text().strip():
                    break
                patience *= 2  # On a busy machine the shell may not have come so far.

        def state():
            return subprocess.run(["ps", "-o", "state=", "-p", child], check=False, capture_output=True, text=True).stdout.strip()

        end = time.monotonic() + 60
        while state() not in ("", "Z") and time.monotonic() < end:  # It has been killed, but has perhaps not had the time to die.
            time.sleep(0.01)
        self.assertIn(state(), ("", "Z"))  # Gone, or dead and not yet collected by init.


if __name__ == "__main__":
    unittest.main()
