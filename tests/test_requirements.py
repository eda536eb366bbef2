"""The requirement files do not contradict each other."""

import re

from lib.files import PROJECT_ROOT


def test_a_package_has_one_pin_for_each_python_in_all_files():
    pins: dict[str, set[str]] = {}
    files = sorted(PROJECT_ROOT.glob("requirements*.txt"))
    for line in "\n".join(file.read_text() for file in files).splitlines():
        if found := re.fullmatch(r"([\w-]+)==([\w.]+)(?:; (.+))?", line):
            name, version, python = found.groups()
            pins.setdefault(f"{name.lower()} {python or ''}", set()).add(version)
    assert len(files) > 3 and pins["numpy "]
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}
