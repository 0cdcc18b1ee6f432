"""What the report says of the questions of the textbooks, and what `--resume` makes of results that are not whole."""

import re
from pathlib import Path

import pytest

from experiments import cli, questions, report, runner
from experiments.core import Context

FOLDER = Path(report.__file__).parent
CLAIM = {"statement": "s", "measured": 1.0, "comparison": "<", "threshold": 2.0, "detail": "", "control": False}


def entry(name, **claims):
    """Return the record of an experiment whose claims hold or not."""
    recorded = [
        CLAIM | {"id": claim.replace("_", "-"), "holds": holds, "question": questions.of(name, claim.replace("_", "-"))}
        for claim, holds in claims.items()
    ]
    texts = {"name": name, "question": f"Is {name} so?", "answer": "It is.", "method": "So.", "seconds": 1.0}
    return texts | {"highlights": [], "claims": recorded, "emblem": None, "figures": [], "tables": []}


def page(*entries):
    results = {"environment": runner.describe(Context()), "stopped": None, "experiments": list(entries)}
    return report.page(results | {"planned": [each["name"] for each in entries]}, Path())


def row(text, number):
    found = re.search(rf'<li id="question-{number}".*?</li>', text, re.DOTALL)
    assert found
    return re.sub(r"<[^>]+>", "", found[0])


def test_every_experiment_was_made_for_a_question():
    for name in runner.EXPERIMENTS:
        assert questions.of(name, "any claim") or name == "blur", name
        assert questions.rank(name) <= len(questions.QUESTIONS)


def test_single_claims_exist():
    """A claim that is renamed must be renamed in the list too, or it moves to another question."""
    for question in questions.QUESTIONS:
        for name, claims in question.claims.items():
            source = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob(f"{name}*.py"))
            written = [re.sub(r"{.*}", "[a-z]+", text) for text in re.findall(r'"([a-z{}-]+)"', source)]
            for claim in claims:
                assert any(re.fullmatch(text, claim) for text in written), (name, claim)


def test_questions_are_answered_by_their_claims():
    text = page(entry("students", symmetric_teacher=True, close_match=True), entry("twins", accuracy=True))
    assert "Yes." in row(text, 8)
    assert "✓ 2 claims hold: students, twins" in row(text, 8)
    assert "✓ 1 claim holds: students" in row(text, 5)
    assert "not asked in this run" in row(text, 1)
    assert "No." not in row(text, 1)


def test_a_failing_claim_unanswers_its_question_only():
    text = page(entry("students", symmetric_teacher=True, close_match=False), entry("twins", accuracy=True))
    assert "Not answered: close-match failed." in row(text, 8)
    assert "✗ 1 of 2 claims fails: students, twins" in row(text, 8)
    assert "Yes." not in row(text, 8)
    assert "Yes." in row(text, 5)


def test_claims_stand_under_their_questions_and_experiments_in_their_order():
    text = page(entry("twins", accuracy=True), entry("blur", every_edge=True, symmetric_same_picture=True))
    assert text.index('id="blur"') < text.index('id="twins"')
    headings = re.findall(r'Claims on <a href="#question-(\d)">', text)
    assert headings == ["5", "6", "8"]
    assert "Claims<" in page(entry("unheard of", claim=True))


@pytest.mark.parametrize("missing", [False, True])
def test_resume_needs_the_figures(missing, tmp_path, monkeypatch):
    runs = []
    panel = {"file": "figures/a.svg", "alt": "a"}
    record = entry("students", close_match=True) | {"emblem": panel}
    (tmp_path / "figures").mkdir()
    drawing = tmp_path / panel["file"]

    def run(self, _):
        runs.append(self.name)
        drawing.write_text("<svg></svg>")

    monkeypatch.setattr(runner.Experiment, "run", run)
    monkeypatch.setattr(runner, "_record", lambda *_: record)
    arguments = ["run", "students", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    if missing:
        drawing.unlink()
    assert cli.main([*arguments, "--resume"]) == 0
    assert runs == ["students"] * (1 + missing)
