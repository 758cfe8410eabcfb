"""Holds the .proto files to the project's style, and each rule to an example that breaks it."""

import unittest

import proto_files
import proto_style

# A file without fault; each case of BAD changes one thing in it.
GOOD = """syntax = "proto3";
package attend.v9;

// Weighs things.
service ScaleService {
  // Weighs one thing.
  rpc Weigh(WeighRequest) returns (WeighResponse);
}

// Asks for a weight.
message WeighRequest {
  // Required. What to weigh.
  Thing thing = 1;

  // Optional. How to weigh. Default: WEIGHING_MODE_UNSPECIFIED.
  WeighingMode mode = 2;

  // Optional. A factor. Default: 1.
  optional float factor = 3;
}

// Holds a weight.
message WeighResponse {
  // In grams.
  double weight = 1;

  // What was weighed.
  Thing thing = 2;
}

// A thing; both asked and answered, so its fields need not say whether they are required.
message Thing {
  // What it is called.
  string name = 1;
}

// Says how to weigh.
enum WeighingMode {
  // As the scale likes.
  WEIGHING_MODE_UNSPECIFIED = 0;

  // Without the wrapping.
  WEIGHING_MODE_NET = 1;
}
"""

# What it is: (text in GOOD, its replacement, part of the expected violation).
BAD = {
    "package is not the directory": ("package attend.v9;", "package attend.v8;", "is not the directory"),
    "service without suffix": ("service ScaleService", "service Scale", "ending in Service"),
    "request named otherwise": ("WeighRequest", "WeighingRequest", "where WeighRequest is expected"),
    "response named otherwise": ("WeighResponse", "WeighResult", "where WeighResponse is expected"),
    "method in lower case": ("rpc Weigh(", "rpc weigh(", "method attend.v9.ScaleService.weigh: not in PascalCase"),
    "message in lower case": ("message Thing ", "message thing {}\nmessage Thing ", "message attend.v9.thing: not in"),
    "field in camel case": ("double weight", "double netWeight", "field attend.v9.WeighResponse.netWeight: not in"),
    "field with a double underscore": ("double weight", "double net__weight", "not in lower_snake_case"),
    "unsigned field": ("double weight", "uint64 weight", "weight: unsigned"),
    "zero is not unspecified": ("WEIGHING_MODE_UNSPECIFIED = 0;", "WEIGHING_MODE_NONE = 0;", "zero, and only zero"),
    "unspecified is not zero": (
        "WEIGHING_MODE_UNSPECIFIED = 0;",
        "WEIGHING_MODE_NONE = 0;\n\n  // Later.\n  WEIGHING_MODE_UNSPECIFIED = 2;",
        "WEIGHING_MODE_UNSPECIFIED = 2: zero, and only zero",
    ),
    "value without prefix": ("WEIGHING_MODE_NET", "NET", "starting with WEIGHING_MODE_"),
    "value in lower case": ("WEIGHING_MODE_NET", "WEIGHING_MODE_net", "UPPER_SNAKE_CASE"),
    "enum in lower case": ("WeighingMode", "weighingMode", "enum attend.v9.weighingMode: not in PascalCase"),
    "enum with aliases": (
        "  // Without the wrapping.",
        "  option allow_alias = true;\n\n  // The same.\n  WEIGHING_MODE_PURE = 1;\n\n  // Without the wrapping.",
        "allows aliases",
    ),
    "service without comment": ("// Weighs things.\n", "", "service attend.v9.ScaleService: has no"),
    "method without comment": ("  // Weighs one thing.\n", "", "method attend.v9.ScaleService.Weigh: has no"),
    "message without comment": ("// Holds a weight.\n", "", "message attend.v9.WeighResponse: has no"),
    "field without comment": ("  // In grams.\n", "", "field attend.v9.WeighResponse.weight: has no"),
    "enum without comment": ("// Says how to weigh.\n", "", "enum attend.v9.WeighingMode: has no"),
    "enum value without comment": ("  // Without the wrapping.\n", "", "WEIGHING_MODE_NET: has no"),
    "empty comment": ("// In grams.", "//", "field attend.v9.WeighResponse.weight: has no"),
    "comment detached by a blank line": ("// In grams.\n", "// In grams.\n\n", "weight: has no"),
    "comment after the element": (
        "  // In grams.\n  double weight = 1;",
        "  // In grams.\n  double weight = 1;  // Really.",
        "trailing comment 'Really.'",
    ),
    "comment in lower case": ("// In grams.", "// in grams.", "does not begin with a capital"),
    "comment without period": ("// In grams.", "// In grams", "does not end with a period"),
    "request field without behaviour": ("// Required. What to weigh.", "// What to weigh.", "neither `Required.`"),
    "oneof without comment": (
        "  double weight = 1;",
        "  double weight = 1;\n\n  oneof extra {\n    // One.\n    string one = 7;\n  }",
        "oneof attend.v9.WeighResponse.extra: has no",
    ),
}


class StyleTest(unittest.TestCase):
    def test_every_file_of_the_repository_follows_the_style(self):
        files = [file for file in proto_files.repository_protos() if file.package.startswith("attend.")]  # Google's are Google's.
        self.assertIn("attend/v1/attention_service.proto", [file.name for file in files])
        found = proto_style.violations(files)
        self.assertFalse(found, "\n" + "\n".join(found))

    def test_stored_layers_import_nothing(self):
        """So that a change of the API changes nothing on disks."""
        stored = [file for file in proto_files.repository_protos() if file.package.startswith("attend.storage.")]
        self.assertEqual([list(file.dependency) for file in stored], [[]])

    def test_every_language_is_told_a_package(self):
        for file in proto_files.repository_protos():
            if file.package == "attend.v1":
                with self.subTest(file.name):
                    options = file.options
                    self.assertTrue(options.go_package.endswith("/attend/v1;attendv1"), options.go_package)
                    self.assertEqual((options.java_package, options.java_multiple_files), ("dev.attend.v1", True))
                    self.assertEqual(options.csharp_namespace, "Attend.V1")

    def test_the_good_example_is_good(self):
        self.assertEqual(proto_style.violations(proto_files.compile_text({"attend/v9/scale.proto": GOOD})), [])

    def test_every_rule_catches_its_bad_example(self):
        for what, (text, replacement, expected) in BAD.items():
            with self.subTest(what):
                self.assertIn(text, GOOD)
                bad = GOOD.replace(text, replacement)
                found = proto_style.violations(proto_files.compile_text({"attend/v9/scale.proto": bad}))
                self.assertTrue(any(expected in violation for violation in found), f"expected {expected!r} in {found}")

    def test_file_names_and_versions(self):
        for name, package, expected in (
            ("attend/v9/ScaleService.proto", "attend.v9", "lower_snake_case"),
            ("attend/v9/v9.proto", "attend.v9", "after what it holds"),
            ("attend/scale.proto", "attend", "does not end in a version"),
        ):
            with self.subTest(name):
                text = GOOD.replace("package attend.v9;", f"package {package};")
                found = proto_style.violations(proto_files.compile_text({name: text}))
                self.assertTrue(any(expected in violation for violation in found), found)

    def test_a_request_shared_by_two_methods_is_caught(self):
        shared = GOOD.replace(
            "  // Weighs one thing.", "  // Weighs again.\n  rpc Again(WeighRequest) returns (AgainResponse);\n\n  // Weighs one thing."
        ).replace("// Holds a weight.", "// Holds nothing.\nmessage AgainResponse {}\n\n// Holds a weight.")
        found = proto_style.violations(proto_files.compile_text({"attend/v9/scale.proto": shared}))
        self.assertTrue(any("shares .attend.v9.WeighRequest with" in violation for violation in found), found)

    def test_fields_of_messages_that_only_requests_hold_say_whether_they_are_required(self):
        only_asked = GOOD.replace("  // What was weighed.\n  Thing thing = 2;\n", "")
        found = proto_style.violations(proto_files.compile_text({"attend/v9/scale.proto": only_asked}))
        self.assertEqual(len(found), 1, found)
        self.assertIn("attend.v9.Thing.name", found[0])


if __name__ == "__main__":
    unittest.main()
