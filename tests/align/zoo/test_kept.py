"""What `align zoo` keeps: an outcome is of the models' own files too, which lie beside the file of pairs."""

from align.cases import files
from align.zoo.runner import run

PAIRS = """
[[case]]
name = "kept"
reference = "kept_reference:net"
port = "kept_port:net"
inputs = ["2,3"]
"""
MODEL = "from {framework} import nn\n\n\ndef net():\n    return nn.Sequential(nn.Linear(3, 4), nn.{activation}())\n"


def test_a_changed_port_is_run_again(tmp_path, monkeypatch):
    pairs = tmp_path / "pairs" / "pairs.toml"
    pairs.parent.mkdir()
    pairs.write_text(PAIRS)
    (pairs.parent / "kept_reference.py").write_text(MODEL.format(framework="torch", activation="Tanh"))
    port = pairs.parent / "kept_port.py"
    monkeypatch.chdir(tmp_path)  # import paths are found beside the file, not here

    def outcome(activation):
        port.write_text(MODEL.format(framework="paddle", activation=activation))
        cases = [*files.read(pairs).values()]
        return run(cases, tmp_path / "out", lambda *_: None, roots=(pairs.parent,)).outcomes[0]

    right = outcome("Tanh")
    assert (right.verdict, right.error) == ("aligned", None)
    assert outcome("Tanh").seconds == right.seconds  # kept
    assert outcome("Sigmoid").verdict == "misaligned"
    assert len((tmp_path / "out" / "outcomes.jsonl").read_text().splitlines()) == 2
