"""The structures here are those of the headers, byte for byte, and every function is there."""
import ctypes
import pathlib
import re
import shutil
import subprocess

import pytest

from xkd import _library as c

INCLUDE = pathlib.Path(__file__).resolve().parents[3] / "include"


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_structures(tmp_path):
    source = ["#include <stddef.h>", "#include <stdio.h>", "#include <xkd/xkd.h>", "int main(void) {"]
    for name, structure in c.STRUCTURES.items():
        source.append(f'printf("{name} %zu", sizeof({name}));')
        for field in structure._fields_:
            source.append(f'printf(" %zu", offsetof({name}, {field[0]}));')
        source.append('printf("\\n");')
    source.append("return 0; }")
    (tmp_path / "layout.c").write_text("\n".join(source))
    subprocess.run(["cc", "-I", str(INCLUDE), str(tmp_path / "layout.c"), "-o", str(tmp_path / "layout")], check=True)
    lines = subprocess.run([str(tmp_path / "layout")], check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len(c.STRUCTURES)
    for line in lines:
        name, size, *offsets = line.split()
        structure = c.STRUCTURES[name]
        assert int(size) == ctypes.sizeof(structure), name
        assert [int(o) for o in offsets] == [getattr(structure, f[0]).offset for f in structure._fields_], name


def test_functions_are_declared():
    """Each name here is one of the headers, with as many parameters."""
    text = " ".join(p.read_text() for p in sorted((INCLUDE / "xkd").glob("*.h")))
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    declared = {m[1]: m[2] for m in re.finditer(r"XKD_API[^;]*?\b(xkd_\w+)\(([^;]*)\);", text)}
    for name, (_, arguments) in c.FUNCTIONS.items():
        parameters = declared[name].strip()
        count = 0 if parameters == "void" else parameters.count(",") + 1
        assert count == len(arguments), name


def test_version_is_the_librarys():
    import xkd
    assert xkd.__version__ == xkd.library_version()
