"""Completions in a real bash, and manual pages that groff reads without a complaint; both out of the flags."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from attend_testing.server import BINARY, BUILD_DIR
from cli_harness import ATTEND, attend, environment

PROGRAMS = {"attend": ATTEND, "attend-server": str(BINARY)}


def script(program, shell):
    arguments = ["completions", shell] if program == "attend" else ["--completions", shell]
    run = attend(*arguments, program=PROGRAMS[program])
    assert run.code == 0, run.err
    return run.text


def help_flags(*command, program):
    text = attend(*command, "--help", program=PROGRAMS[program]).text
    names = re.findall(r"^\s+((?:-\w,)?--[a-z0-9-]+(?:,--[a-z0-9-]+)*)", text, re.MULTILINE)
    return {name for line in names for name in line.split(",") if name.startswith("--")}


class BashTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="attend-shell-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def complete(self, *words, program="attend"):
        """What bash offers for the last word of a line."""
        path = self.folder / program
        path.write_text(script(program, "bash"))
        function = "_" + program.replace("-", "_")
        line = " ".join(f"'{word}'" for word in words)
        code = (f"set -u; source '{path}'; COMP_WORDS=({program} {line}); COMP_CWORD={len(words)}; {function}; "
                "printf '%s\\n' \"${COMPREPLY[@]-}\"; complete -p " + program)  # fmt: skip
        done = subprocess.run(["bash", "--noprofile", "--norc", "-c", code], capture_output=True, text=True, env=environment(), check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        *offered, how = done.stdout.splitlines()
        self.assertIn("-o default", how, "files, where nothing is offered")
        return [word for word in offered if word]

    def test_commands(self):
        self.assertEqual(self.complete("comp"), ["compute", "completions"])
        self.assertEqual(self.complete("layers", "")[:5], ["list", "get", "upload", "check", "delete"])
        self.assertEqual(self.complete("layers", "u"), ["upload"])
        self.assertEqual(self.complete("--timeout", "3s", "sd"), ["sdpa"])
        self.assertEqual(self.complete("layers", "upload", "u"), [])

    def test_every_flag_of_the_help_is_offered_and_no_other(self):
        for command in (["compute"], ["sdpa"], ["layers", "upload"], ["health"], []):
            with self.subTest(command):
                shown = help_flags(*command, program="attend") | {"--version"}  # Of the program, and taken by every command.
                self.assertEqual(set(self.complete(*command, "--")), shown)
        self.assertEqual(set(self.complete("--", program="attend-server")), help_flags(program="attend-server"))

    def test_values_where_there_is_a_list_and_files_elsewhere(self):
        self.assertEqual(self.complete("compute", "--dtype", ""), ["float32", "float64", "float16", "bfloat16"])
        self.assertEqual(self.complete("compute", "--precision", "f"), ["fast"])
        self.assertEqual(self.complete("info", "-o", "j"), ["json"])
        self.assertEqual(self.complete("compute", "--input", ""), [])
        self.assertEqual(self.complete("--fast-kernels", "o", program="attend-server"), ["on", "off"])

    def test_a_flag_without_a_value_is_followed_by_any_word(self):
        for flag in ("--tls", "--insecure"):
            self.assertEqual(self.complete(flag, "sd"), ["sdpa"])
            self.assertEqual(self.complete("compute", flag, "--dty"), ["--dtype"])
        self.assertEqual(self.complete("compute", "--weights", "--dty"), ["--dtype"])
        self.assertEqual(self.complete("--check-config", "--print-c", program="attend-server"), ["--print-config"])

    def test_zsh_and_fish_know_which_flags_take_a_value(self):
        types = "float32 float64 float16 bfloat16"
        zsh = script("attend", "zsh")
        self.assertIn(f"\n    'compute:--dtype') compadd -- {types}; return ;;\n", zsh)
        self.assertIn("\n    'compute:--input') _files; return ;;\n", zsh)
        self.assertIn("\n    ':--timeout') _files; return ;;\n", zsh)
        self.assertNotIn(":--tls')", zsh)
        fish = script("attend", "fish")
        self.assertRegex(fish, rf" -l dtype -x -a '{types}' -d 'Convert ")
        self.assertIn("\ncomplete -c attend -l timeout -r -d 'Deadline of each call, as in 500ms, 30s or 2m'\n", fish)
        self.assertIn("\ncomplete -c attend -l tls -d 'Encrypt, trusting this system\\'s certificate authorities'\n", fish)

    def test_the_other_shells_accept_their_scripts(self):
        for program in PROGRAMS:
            for shell, check in (("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])):
                text = script(program, shell)
                self.assertIn("--layer" if shell != "fish" else "-l layer", text)
                if shutil.which(shell):
                    path = self.folder / f"{program}.{shell}"
                    path.write_text(text)
                    done = subprocess.run([shell, *check, path], capture_output=True, text=True, check=False)
                    self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_what_the_build_installs_is_what_the_program_prints(self):
        for program in PROGRAMS:
            for shell in ("bash", "zsh", "fish"):
                self.assertEqual((BUILD_DIR / "share" / f"{program}.{shell}").read_text(), script(program, shell))

    def test_an_unknown_shell_is_refused(self):
        self.assertEqual(attend("completions", "bsh").err, "attend: SHELL bsh: expected bash, zsh, fish; did you mean bash?\n")


class ManualTest(unittest.TestCase):
    def page(self, program):
        (path,) = (BUILD_DIR / "share").glob(f"{program}.[0-9]")
        return path

    @unittest.skipUnless(shutil.which("groff"), "groff is not installed")
    def test_groff_has_nothing_to_complain_about(self):
        for program in PROGRAMS:
            command = ["groff", "-man", "-Tutf8", "-ww", "-rLL=200n", "-rHY=0", self.page(program)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            text = re.sub(r"\x1b\[\d*m|.\x08", "", done.stdout)
            self.assertIn("NAME", text)
            self.assertEqual(help_flags(program=program) - set(re.findall(r"--[a-z0-9-]+", text)), set())

    def test_a_flag_has_the_type_of_its_value_if_it_has_one(self):
        text = self.page("attend").read_text().replace("\\-", "-")
        self.assertIn("\n.TP\n.B --tls\nEncrypt, trusting this system's certificate authorities. Also read from ATTEND_TLS.\n", text)
        self.assertIn("\n.TP\n.B --timeout \\fITEXT\\fR\nDeadline of each call, as in 500ms, 30s or 2m. Default: 30s. "
                      "Also read from ATTEND_TIMEOUT.\n", text)  # fmt: skip
        self.assertRegex(text, r"\n\.TP\n\.B --dtype \\fITEXT\\fR\nConvert .* One of float32, float64, float16, bfloat16\.\n")
        self.assertIn("\n.TP\n.B --num-heads, --heads \\fIINT\\fR\n", text)
        self.assertIn("\n.TP\n.B --bias \\fIFILE\\fR\n", text)
        self.assertIn("\n.TP\n.B --weights\nReturn attention_weights as well.\n", text)
        self.assertIn("\n.TP\n.B NAME\nThe layer's name, as in minilm/0.\n", text)  # An argument without a flag.

    def test_every_flag_of_every_command_is_in_the_page(self):
        text = self.page("attend").read_text().replace("\\-", "-")
        for command in ([], ["compute"], ["sdpa"], ["batch"], ["layers", "upload"], ["layers", "list"], ["health"]):
            for flag in help_flags(*command, program="attend"):
                self.assertIn(flag, text)
        text = self.page("attend-server").read_text().replace("\\-", "-")
        for flag in help_flags(program="attend-server"):
            self.assertIn(flag, text)


if __name__ == "__main__":
    unittest.main()
