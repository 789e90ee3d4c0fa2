"""What an installed fm is to the tools of its users."""

import subprocess
import sys


def test_type_checkers_find_the_types(tmp_path):
    """An editable install by an import hook hides them, and so does a lost py.typed."""
    user = tmp_path / "user.py"
    user.write_text("import fm\nmodel = fm.load('model.safetensors')\n")
    command = ["mypy", "--strict", "--follow-imports=skip", "--cache-dir", str(tmp_path / "cache")]
    run = subprocess.run(
        [sys.executable, "-m", *command, user.name], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
