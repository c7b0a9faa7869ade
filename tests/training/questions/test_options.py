"""The sets of four: what their options give away, and what their texts give away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pytest

from tests.training.questions.conftest import Asked
from tests.training.questions.motions import scenes
from training.questions.candidates import Candidate, candidates
from training.questions.foretold import FOLDS, group, leaning, learn
from training.questions.heuristics import statements
from training.questions.options import FOUR, TOLERANCES, fours
from training.questions.verbalise import place


def pool(type_: str, count: int = 16, drawn: int = 60) -> list[Candidate]:
    some = scenes(count, seed=8)
    return [c for cues in some for c in candidates(cues, type_, drawn, Random(0), Counter())]


def nats(questions: list[Candidate]) -> float:
    """By how much, on average, texts speak for their own answers."""
    (told,) = learn(questions).values()
    guesses, answers = told(questions)
    return float((guesses * answers).sum(1).mean())


def test_every_option_is_the_truth_of_one_of_its_four_questions(asked: Asked) -> None:
    """The proof that options alone tell nothing: in each set, every option is right exactly once."""
    for records in asked.groups:
        assert len(records) == FOUR
        assert len({frozenset(record.options) for record in records}) == 1
        truths = [record.options[record.right] for record in records]
        assert sorted(truths) == sorted(records[0].options)


def test_any_rule_on_the_options_is_right_in_one_of_four(asked: Asked) -> None:
    """Whatever it is: even one that was made by looking at the answers."""
    memorised = Counter(record.options[record.right] for record in asked.records)
    rules: list[Callable[[str], float]] = [len, hash, lambda option: memorised[option], lambda option: -ord(option[5])]
    for rule in rules:
        for records in asked.groups:
            # Ties are broken by the text itself, never by the place in the list.
            picked = [max(record.options, key=lambda option: (rule(option), option)) for record in records]
            hits = sum(p == r.options[r.right] for p, r in zip(picked, records, strict=True))
            assert hits == 1


def test_options_have_as_many_statements_and_no_duplicates_in_disguise(asked: Asked) -> None:
    for record in asked.records:
        assert record.extras is not None
        assert {len(statements(option)) for option in record.options} == {len(record.extras.statements)}
        plain = {"".join(sorted(option.lower().replace(" ", ""))) + option.lower() for option in record.options}
        assert len(plain) == FOUR
        meant = [np.stack([place(said) for said in statements(option)]) for option in record.options]
        assert all(not np.array_equal(one, other) for one, other in combinations(meant, 2))


def test_letters_are_right_equally_often(asked: Asked) -> None:
    for records in asked.groups:
        assert sorted(record.answer for record in records) == list("ABCD")


def test_options_are_close_to_the_truth(asked: Asked) -> None:
    """Changed trajectories and true answers of other questions, a good part of each."""
    sources = Counter(
        source.split(",")[0].split(" ")[0]
        for record in asked.records
        if record.extras is not None
        for source in record.extras.sources
    )
    assert sources["truth"] == len(asked.records)
    wrong = sources.total() - sources["truth"]
    assert sources["another"] < 0.65 * wrong
    for kind in ("mirrored", "time", "speeds", "rising"):
        assert sources[kind] > 50, kind


def test_text_of_a_set_leans_to_none_of_its_answers() -> None:
    candidates_ = pool("rel_dir", 24)
    told, drawn = learn(candidates_), Random(0)
    sets = list(fours(candidates_, told, 30, 8, drawn, Counter()))
    assert len(sets) > 12
    chance = []
    for four in sets:
        own = group(four.members[0])
        assert leaning(*told[own](four.members)) <= TOLERANCES[1] + 1e-9
        chance.append(leaning(*told[own](drawn.sample([c for c in candidates_ if group(c) == own], FOUR))))
    assert np.median(chance) > 3 * TOLERANCES[1]


def test_what_a_box_tells_is_foretold() -> None:
    """Where a thing is for the moving camera shows in its box; how its speed changes does not show."""
    assert nats([c for c in pool("rel_dir", 24) if group(c) == ("rel_dir", True, True)]) > 2
    assert nats([c for c in pool("rel_spd", 24) if group(c) == ("rel_spd", True, False)]) < 0.2


def test_nothing_is_foretold_of_answers_that_were_dealt_at_random() -> None:
    """A model that had seen a video's own answers would speak for them: with 0.5 nats here."""
    members = [c for c in pool("rel_dir", 24) if group(c) == ("rel_dir", True, True)]
    for seed in range(3):
        dealt = Random(seed).sample(members, len(members))
        strangers = [replace(c, statements=d.statements) for c, d in zip(members, dealt, strict=True)]
        assert nats(strangers) < 0.1


def test_too_few_videos_foretell_nothing_and_give_no_sets() -> None:
    few = pool("rel_ori", FOLDS - 1)
    dropped = Counter[str]()
    assert learn(few) == {}
    assert list(fours(few, {}, 5, 8, Random(0), dropped)) == []
    assert dropped == {"too few videos to learn what the text foretells": len(few)}


def test_sets_share_no_question_and_no_video_too_often() -> None:
    questions = pool("rel_spd", 16)
    dropped = Counter[str]()
    sets = list(fours(questions, learn(questions), 20, 8, Random(0), dropped))
    members = [member for four in sets for member in four.members]
    assert len({id(member) for member in members}) == len(members)
    assert max(Counter(member.cues.video for member in members).values()) <= 8
    assert len(members) + dropped.total() == len(questions)


@pytest.mark.parametrize("type_", ["abs_spd_comp", "rel_dir", "abs_dis"])
def test_one_statement_that_has_no_four_answers_is_dropped_and_counted(type_: str) -> None:
    """Three comparisons cannot be four options."""
    dropped = Counter[str]()
    questions = pool(type_)
    sets = list(fours(questions, learn(questions), 12, 8, Random(0), dropped))
    if type_ == "abs_spd_comp":
        assert min(len(four.members[0].statements) for four in sets) >= 2
        assert dropped["no four answers with as many statements"] > 0
    assert dropped["no three others of which only the video tells it apart"] > 0
