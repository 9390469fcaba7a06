"""Builds the wheel of a pure Python package with the standard library alone (PEP 517, 660)."""
import base64
import hashlib
import io
import os
import re
import tarfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
SUMMARY = "Video and audio encoders trained without labels: features, classes, clips and training through libxkd"


def version():
    with open(os.path.join(HERE, "xkd", "_version.py"), encoding="utf-8") as f:
        return re.search(r'__version__ = "([^"]+)"', f.read()).group(1)


def metadata():
    return (f"Metadata-Version: 2.1\nName: xkd\nVersion: {version()}\nSummary: {SUMMARY}\nLicense: MIT\n"
            "Requires-Python: >=3.9\nRequires-Dist: numpy>=1.21\n")


def sources():
    for folder, _, names in sorted(os.walk(os.path.join(HERE, "xkd"))):
        for name in sorted(names):
            if name.endswith((".py", ".typed")):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, HERE), path


def write_wheel(folder, files):
    info = f"xkd-{version()}.dist-info"
    files = dict(files)
    files[f"{info}/METADATA"] = metadata().encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: xkd\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = io.StringIO()
    name = f"xkd-{version()}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.write(f"{path},sha256={digest},{len(data)}\n")
        record.write(f"{info}/RECORD,,\n")
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD", (2020, 1, 1, 0, 0, 0)), record.getvalue())
    return name


def read(path):
    with open(path, "rb") as f:
        return f.read()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return write_wheel(wheel_directory, {name: read(path) for name, path in sources()})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return write_wheel(wheel_directory, {"xkd.pth": (HERE + "\n").encode()})


def build_sdist(sdist_directory, config_settings=None):
    base = f"xkd-{version()}"
    with tarfile.open(os.path.join(sdist_directory, base + ".tar.gz"), "w:gz") as out:
        for name in ["pyproject.toml", "build_backend.py", "README.md"]:
            out.add(os.path.join(HERE, name), f"{base}/{name}")
        for name, path in sources():
            out.add(path, f"{base}/{name}")
        data = metadata().encode()
        entry = tarfile.TarInfo(f"{base}/PKG-INFO")
        entry.size = len(data)
        out.addfile(entry, io.BytesIO(data))
    return base + ".tar.gz"
