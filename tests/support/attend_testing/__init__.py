"""What the Python tests share: a real server, generated stubs, tensors, error details and a float64 oracle.

A test finds its surroundings through the environment that CMake's attend_python_test sets. By hand, for a build in
build/release:

    PYTHONPATH=tests/support:build/release/generated/python ATTEND_BUILD_DIR=build/release \\
        /usr/bin/python3 tests/integration/golden_test.py
"""
