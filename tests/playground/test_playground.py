"""The page in a real browser, over real HTTP, with canned answers: what it shows, sends and bears."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.clips import make_clip
from tests.playground.browser import Page
from tests.playground.canned import TIMES, Canned, answer, event, problem, refused

QUESTION = "How does the speed of the blue ball change?"
BUSY = problem(429, "busy", "Too busy", "every queue is full")


def without_options(page: Page) -> None:
    for button in page.all("#options li button"):
        button.click()


def test_a_visitor_sees_the_sample_and_its_question_first_and_nothing_is_sent(page: Page, canned: Canned) -> None:
    page.open().with_sample()
    question = json.loads(Path("models/tiny/sample/question.json").read_text())
    assert page.one("#question").get_property("value") == question["question"]
    shown = [row.get_property("value") for row in page.all("#options input")]
    assert shown == question["options"]
    page.until(lambda: page.run("return document.querySelector('#video').currentTime > 0.1"), "the clip playing")
    page.reads("#status", "dsr-canned")
    assert (canned.uploads, canned.asked) == ([], [])
    assert page.complaints() == []


def test_an_answer_shows_its_choice_probabilities_stages_and_heat(page: Page, canned: Canned) -> None:
    page.open().with_sample()
    page.ask(QUESTION)
    page.answered()
    [asked] = canned.asked
    assert asked["video"] == {"id": "vid_" + "0" * 64}
    assert (asked["question"], asked["explain"], asked["stream"], asked["geometry"]) == (QUESTION, True, True, "gsm")
    assert len(asked["options"]) == 4
    assert "frames" not in asked, "the service's own default"
    assert page.one("#reply .choice b").text == "B"
    assert page.one("#reply .choice span").text == asked["options"][1]
    assert page.texts("#bars .share") == ["12.0 %", "64.0 %", "12.0 %", "12.0 %"]
    widths = [bar.rect["width"] for bar in page.all("#bars .track i")]
    track = page.one("#bars .track").rect["width"]
    assert [round(width / track, 2) for width in widths] == [0.12, 0.64, 0.12, 0.12]
    assert page.texts("#timing th[scope]") == ["frames", "encoder", "selector", "decoder"]
    assert page.texts("#timing .cache") == ["miss"] * 4
    bars = [bar.rect for bar in page.all("#timing .track i")]
    assert bars[0]["x"] + bars[0]["width"] < bars[1]["x"], "the encoder starts after the frames have ended"
    assert bars[3]["x"] == bars[0]["x"], "the decoder starts with the frames"
    assert page.heat() is not None
    assert len(page.all("#strip figure")) == TIMES
    page.until(lambda: len(page.all("#strip .pictured")) == TIMES, "a picture of every moment")
    assert page.complaints() == []


def test_the_heat_follows_the_clip_and_the_question(page: Page) -> None:
    page.open(motion="reduce").with_sample()
    page.ask(QUESTION)
    page.answered()
    page.halt(0.5)
    early = page.looked()
    page.halt(5.5)
    page.until(lambda: page.heat() != early, "another heat at another time")
    page.halt(0.5)
    page.until(lambda: page.heat() == early, "the same heat at the same time")
    page.ask("And how does the camera move?")
    page.answered(2)
    page.halt(0.5)
    assert page.heat() != early
    assert page.texts("#timing .cache")[:3] == ["not asked", "not asked", "hit"]

    first = page.all("#history button")[1]
    assert QUESTION in first.text
    first.click()
    page.until(lambda: page.heat() == early, "the first answer's heat again")
    assert page.one("#asked").text == QUESTION
    assert page.texts("#timing .cache") == ["miss"] * 4
    page.one("#show-heat").click()
    assert page.heat() is None


def test_the_heat_lies_where_the_attention_is(page: Page, canned: Canned) -> None:
    asked: dict[str, Any] = {"options": [], "geometry": "gsm", "question": QUESTION}
    corner = [[[1.0 if (row, column) == (2, 3) else 0.0 for column in range(4)] for row in range(3)]]
    looked = {"times": [0.0], "grid": [1, 3, 4], "attention": corner}
    canned.chunks = [event("answer", {**answer(asked), "explanation": looked})]
    page.open(motion="reduce").with_sample()
    page.ask()
    page.answered()
    heat = page.looked()
    assert heat[8 * 16 + 15] > 200, "bottom right: bright"
    assert max(heat[row * 16 + column] for row in range(4) for column in range(9)) < 20, "top left: dark"


def test_a_moment_of_the_strip_takes_the_clip_there_by_click_and_by_key(page: Page) -> None:
    page.open(motion="reduce").with_sample()
    page.ask()
    page.answered()
    page.all("#strip figure")[8].click()
    now = "return document.querySelector('#video').currentTime"
    page.until(lambda: abs(page.run(now) - 8.5 * 0.375) < 0.01, "the middle of the ninth moment")
    assert page.attribute("#strip", "aria-valuetext").replace("\u00a0", " ").startswith("3.2 s: ")
    strip = page.one("#strip")
    strip.send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: abs(page.run(now) - 9.5 * 0.375) < 0.01, "one moment on")
    strip.send_keys(Keys.HOME)
    page.until(lambda: page.attribute("#strip", "aria-valuenow") == "0", "the first moment")
    assert abs(page.run(now) - 0.5 * 0.375) < 0.01


def test_a_free_answer_is_written_piece_by_piece_whatever_the_chunks(page: Page, canned: Canned) -> None:
    text = "Links, dann größer … 🚗 fährt <b>weg</b>."
    asked: dict[str, Any] = {"options": [], "geometry": "gsm", "question": QUESTION}
    pieces = [event("token", {"text": piece}) for piece in (text[:14], text[14:])]
    stream = b": hello\r\n\r\n" + b"".join(pieces).replace(b"\n", b"\r\n") + event("answer", answer(asked, text))
    cut = stream.index(b"event: answer") + 40  # the rest is long
    canned.chunks = [*(stream[i : i + 7] for i in range(0, cut - 6, 7)), stream[cut - cut % 7 :]]
    assert b"".join(canned.chunks) == stream
    page.open().with_sample()
    without_options(page)
    page.ask()
    page.answered()
    assert canned.asked[0]["options"] == []
    assert page.one("#reply").text == text, "text, not markup, and no character broken in two"
    assert page.all("#bars *") == []
    assert page.complaints() == []


def test_the_answer_is_seen_while_it_is_written_and_told_when_it_is_whole(page: Page, canned: Canned) -> None:
    canned.pause = 0.4
    page.open().with_sample()
    without_options(page)
    page.ask()
    reply = page.reads("#reply", "Behind,")
    assert reply.get_attribute("aria-live") == "polite"
    assert reply.get_attribute("aria-busy") == "true"
    assert "left." not in reply.text
    page.answered()
    assert reply.text == "Behind, then left."


def test_escape_cancels_and_the_next_question_is_answered(page: Page, canned: Canned) -> None:
    canned.pause = 30
    page.open().with_sample()
    page.ask()
    page.reads("#reply", "B")
    assert page.one("#cancel").is_displayed()
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.reads("#note", "Cancelled.")
    page.until(lambda: canned.cancelled == 1, "the service told that nobody listens")
    assert not page.one("#cancel").is_displayed()
    assert page.focused() == "question"
    canned.pause = 0
    page.ask()
    page.answered()
    assert len(canned.uploads) == 1, "the clip is there already"


def test_the_service_words_its_errors_and_the_field_is_marked(page: Page, canned: Canned) -> None:
    detail = "frames: Input should be less than or equal to 256"
    wrong = problem(422, "out_of_limits", "Out of limits", detail, field="frames", value=1000, limit=256)
    canned.refusals.append(refused(wrong))
    page.open().with_sample()
    page.one("#more summary").click()
    page.one("[name=frames]").send_keys("1000", Keys.ENTER)
    shown = page.reads("#problem", "Out of limits")
    assert canned.asked[0]["frames"] == 1000
    assert shown.get_attribute("role") == "alert"
    assert detail in shown.text
    assert page.texts("#problem dd") == ["frames", "1000", "256", "req_1"]
    marked = page.one("[aria-invalid=true]")
    assert marked.get_attribute("name") == "frames"
    marked.clear()
    page.one("#problem button").click()
    page.answered()
    assert "frames" not in canned.asked[1]
    assert not page.one("#problem").is_displayed()
    assert page.all("[aria-invalid=true]") == []


def test_an_error_within_the_stream_is_shown_as_well(page: Page, canned: Canned) -> None:
    lost = problem(503, "stage_lost", "Stage lost", "decoder lost its replica 3 times")
    canned.chunks = [event("token", {"text": "Beh"}), event("error", lost)]
    page.open().with_sample()
    page.ask()
    page.reads("#problem", "decoder lost its replica 3 times")
    assert page.one("#reply").text == ""


def test_a_stream_that_breaks_off_is_an_error_and_no_answer(page: Page, canned: Canned) -> None:
    canned.chunks = [event("token", {"text": "Beh"})]
    page.open().with_sample()
    page.ask()
    page.reads("#problem", "the stream ended before the answer was complete")
    assert page.all("#history li") == []


def test_a_busy_service_says_when_to_come_back(page: Page, canned: Canned) -> None:
    canned.refusals.append(refused(BUSY, **{"Retry-After": "3"}))
    page.open().with_sample()
    page.ask()
    assert "better in 3 s" in page.reads("#problem", "Too busy").text


def test_a_key_is_asked_for_when_the_service_wants_one_and_never_kept(page: Page, canned: Canned) -> None:
    closed = refused(problem(401, "unauthorized", "Unauthorized", "this service wants an API key"))
    canned.upload_refusals.append(closed)
    page.open().with_sample()
    assert not page.one("#key").is_displayed()
    page.ask()
    page.shown("#key")
    assert page.focused() == "key-input"
    page.one("#key-input").send_keys("dsr-secret", Keys.ENTER)
    page.answered()
    assert canned.keys == [None, "Bearer dsr-secret", "Bearer dsr-secret"]
    assert not page.one("#key").is_displayed()
    assert page.one("#key-input").get_property("value") == ""
    assert page.run("return localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_a_clip_of_the_visitors_own_is_uploaded_at_once_and_once(page: Page, canned: Canned, tmp_path: Path) -> None:
    make_clip(tmp_path / "mine.mp4", seconds=2, fps=10, size=(320, 180))
    page.open().with_sample()
    page.ask()
    page.answered()
    page.upload(tmp_path / "mine.mp4")
    page.reads("#facts", "mine.mp4")
    page.reads("#note", "Ready: ask.")
    assert page.all("#history li") == [], "the questions were about another clip"
    assert page.heat() is None
    assert len(canned.uploads) == 2
    page.ask(QUESTION)
    page.answered()
    page.ask("And then?")
    page.answered(2)
    assert len(canned.uploads) == 2
    page.one("#use-sample").click()
    page.reads("#facts", "sample.mp4")


def test_a_video_that_the_service_dropped_is_sent_again(page: Page, canned: Canned) -> None:
    page.open().with_sample()
    page.ask()
    page.answered()
    canned.refusals.append(refused(problem(404, "unknown_video", "Unknown video", "no video of this id is held")))
    page.ask(QUESTION)
    page.answered(2)
    assert len(canned.uploads) == 2


def test_a_file_that_is_no_video_shows_the_services_error(page: Page, canned: Canned, text_file: Path) -> None:
    canned.upload_refusals.append(refused(problem(415, "not_a_video", "Not a video", "the file is no container")))
    page.open()
    page.upload(text_file)
    page.reads("#problem", "Not a video")
    page.shown("#unplayable")


def test_a_file_that_only_the_service_can_read_is_asked_about_all_the_same(
    page: Page, canned: Canned, text_file: Path
) -> None:
    page.open()
    page.upload(text_file)
    page.reads("#note", "Ready: ask.")
    page.ask(QUESTION)
    page.answered()
    assert len(page.all("#strip figure")) == TIMES
    assert page.all("#strip .pictured") == []
    assert page.heat() is not None


def test_without_geometry_there_is_no_heat(page: Page, canned: Canned) -> None:
    page.open().with_sample()
    page.one("#more summary").click()
    page.one("[name=geometry] [value=off]").click()
    page.ask()
    page.answered()
    assert (canned.asked[0]["geometry"], canned.asked[0]["explain"]) == ("off", False)
    assert page.heat() is None
    assert not page.one("#looked").is_displayed()
    page.reads("#note", "without geometry")


def test_a_model_without_a_selector_is_not_asked_for_geometry(page: Page, canned: Canned) -> None:
    canned.stages = ("frames", "decoder")
    page.open().with_sample()
    page.reads("#status", "2 stages ready")
    page.ask()
    page.answered()
    assert (canned.asked[0]["geometry"], canned.asked[0]["explain"]) == ("off", False)


def test_options_are_added_removed_and_lettered_in_order(page: Page, canned: Canned) -> None:
    page.open().with_sample()
    without_options(page)
    assert page.focused() == "add-option"
    for text in ("left", "", "right"):
        page.one("#add-option").click()
        page.driver.switch_to.active_element.send_keys(text)
    assert page.texts("#options li b") == ["A", "B", "C"]
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.answered()
    assert canned.asked[0]["options"] == ["left", "right"], "an empty row is no option"
    assert page.texts("#options li b") == ["A", "B"]


def test_enter_asks_and_shift_enter_breaks_the_line(page: Page, canned: Canned) -> None:
    page.open().with_sample()
    page.type_question("one")
    page.one("#question").send_keys(Keys.SHIFT, Keys.ENTER, Keys.NULL, "two")
    assert canned.asked == []
    page.one("[aria-label='Option A']").send_keys(Keys.CONTROL, Keys.ENTER)
    page.answered()
    assert canned.asked[0]["question"] == "one\ntwo"
    assert len(canned.asked) == 1


def test_a_service_that_still_starts_says_what_it_waits_for(page: Page, canned: Canned) -> None:
    canned.unready = 1
    page.open()
    page.reads("#status", "not ready: decoder")
    page.reads("#status", "dsr-canned")
