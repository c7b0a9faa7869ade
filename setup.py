"""What is compiled. All else about the package is in pyproject.toml, where extensions are "experimental" still."""

from setuptools import Extension, setup

FLAGS = ["-std=c++17", "-O3", "-march=x86-64-v4", "-mavx512bf16", "-fvisibility=hidden", "-pthread"]

# No module of Python's: models/attention.py loads it by ctypes. Optional: where this cannot be compiled, for want of a
# compiler or on another kind of processor, torch's own kernel is used.
ATTENTION = Extension(
    "models._attention",
    ["models/attention.cpp"],
    language="c++",
    optional=True,
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
)

setup(ext_modules=[ATTENTION])
