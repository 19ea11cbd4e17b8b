"""`import align` loads no framework; and the check itself can fail."""

import pytest

CHECK = "import sys; loaded = {'torch', 'paddle'} & set(sys.modules); sys.exit(f'loaded {loaded}' if loaded else 0)"


@pytest.mark.parametrize(
    "module",
    ["align", "align.cli", "align.cli.run", "align.cli.doctor", "align.pipeline", "align.plan", "align.record.worker"],
)
def test_no_framework_is_imported(run_python, module):
    run_python(f"import {module}; {CHECK}")


@pytest.mark.parametrize("side", ["torch", "paddle"])
def test_the_check_sees_a_framework(run_python, side):
    result = run_python(f"import align.sides.{side}; {CHECK}", check=False)
    assert result.returncode == 1
    assert side in result.stderr
