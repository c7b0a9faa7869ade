"""Text in the language of the questions, from which the tokenizer of the embedded checkpoint learns its merges.

It has the words, numbers and punctuation of the twelve question types and of ordinary questions about a video, in
roughly the proportions in which they are asked. It knows no scene: the answers mean nothing. Questions about real
geometry are made elsewhere.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random


def _words(text: str) -> tuple[str, ...]:
    """The words of a list that would fill a screen if it were written one by one; a hyphen stands for a space."""
    return tuple(word.replace("-", " ") for word in text.split())


AGENTS = _words(
    """person man woman boy girl child baby player runner skater dancer cyclist skateboarder surfer skier swimmer
    climber rider driver worker waiter chef teacher student singer guitarist soldier officer fighter boxer goalkeeper
    referee robot dog puppy cat kitten horse bird cow sheep goat pig elephant bear lion tiger zebra giraffe deer monkey
    rabbit fox wolf duck swan chicken pigeon eagle parrot turtle dolphin whale shark car truck bus van taxi jeep tractor
    bicycle bike motorcycle scooter train tram boat ship canoe airplane helicopter drone"""
)
THINGS = _words(
    """ball football basketball box cube sphere cone cylinder pyramid pillar block crate barrel chair table desk bench
    sofa bed door gate window curtain cup mug glass bottle bowl knife fork spoon plate pan pot oven fridge book paper
    pen phone laptop computer keyboard mouse screen television camera bag backpack suitcase umbrella hat helmet glove
    shirt jacket shoe kite frisbee surfboard snowboard skateboard racket bat tree bush plant flower leaf rock stone log
    sign flag pole fence traffic-light hydrant wheel cart trolley basket bucket toy doll balloon lamp candle clock
    mirror picture building house tower bridge wall roof stairs road river lake beach mountain field grass snow cloud
    apple orange banana pizza cake sandwich guitar piano drum violin hammer drill ladder rope hand arm leg head face
    hair foot tail wing"""
)
COLOURS = _words("red blue green yellow orange purple pink black white grey brown silver golden")
TRAITS = _words(
    """small large big tall short long young old wooden metal plastic round empty parked standing sitting lying moving
    left right front rear nearest farthest first second last other same"""
)
VERBS = _words(
    """move walk run jump turn rotate spin roll slide fall rise climb swim fly drive ride stop start wait stand sit lie
    follow chase approach leave pass cross enter reach touch hit kick throw catch carry hold drop lift push pull open
    close shake wave point look watch face lean bend stretch swing bounce slow accelerate brake reverse park overtake
    collide appear disappear hide cover play dance skate ski surf cook eat drink cut pour write read talk sing clap
    wear grab place show change keep become stay return continue circle float drift"""
)
ADVERBS = _words(
    """slowly quickly suddenly smoothly steadily gradually sharply briefly again twice once together alone sideways
    upwards downwards forwards backwards inwards outwards clockwise counterclockwise straight away nearby almost still
    quite never always often later before afterwards finally"""
)
RELATIONS = _words(
    """in-front-of behind next-to beside above below under over on-top-of inside outside near far-from around beyond
    across-from along towards away-from to-the-left-of to-the-right-of against through"""
)

FIXED_VIEWS = (
    "From the viewpoint of {viewer} at {time}, ",
    "Seen from where {viewer} is at {time}, ",
    "With the viewpoint of {viewer} fixed at {time}, ",
)
MOVING_VIEWS = (
    "From the moving viewpoint of {viewer}, ",
    "Following the viewpoint of {viewer}, ",
    "Relative to {viewer} as it moves, ",
)
QUESTIONS = {
    "dis": ("how does the distance between {x} and {y} change {when}?", "how far is {x} from {y} {when}?"),
    "dir": (
        "how does the direction of {x} to {y} change {when}?",
        "in which direction is {x} relative to {y} {when}?",
    ),
    "ori": ("how does the orientation of {x} change {when}?", "which way does {x} face {when}?"),
    "spd": ("how does the speed of {x} change {when}?", "does {x} become faster or slower {when}?"),
    "spd_comp": ("compare the speed between {x} and {y} {when}.", "which is faster {when}, {x} or {y}?"),
    "dir_pred": ("predict the moving direction of {x} after {end}.", "in which direction will {x} move after {end}?"),
}
TYPES = tuple(f"{scope}_{kind}" for scope, kind in product(("abs", "rel"), QUESTIONS))

DIRECTIONS = tuple(
    "|".join(filter(None, words))
    for words in product(("Front", "", "Behind"), ("Left", "", "Right"), ("Above", "", "", "", "Below"))
    if any(words)
)
TRENDS = (
    "Keep nearly constant",
    "Keep nearly constant and then become smaller",
    "Keep nearly constant and then become larger",
    "Become smaller",
    "Become larger",
)
COMPARISONS = ("Nearly the same", "The former is faster", "The latter is faster")
STATEMENTS = {
    "dis": TRENDS,
    "spd": TRENDS,
    "spd_comp": COMPARISONS,
    "dir": DIRECTIONS,
    "ori": DIRECTIONS,
    "dir_pred": DIRECTIONS,
}

FARTHEST_PIXEL, LATEST_TENTH = 112, 120  # box sides and times up to here are one token each
FAMILIAR = _words("car truck person dog robot bird ball box cylinder cone balloon")  # what rendered scenes hold


def phrases() -> tuple[str, ...]:
    """What the questions say again and again, each worth one token: the less there is to read, the less there is to
    learn about reading. A statement, its number, a time to 0.1 s, a side of a box, the fixed words of a question."""
    numbers = (
        *(f" {tenth / 10:.1f}" for tenth in range(LATEST_TENTH + 1)),
        *(before + str(pixel) for before in (" [", ", ") for pixel in range(FARTHEST_PIXEL + 1)),
        *(f" ({number})" for number in range(1, 16)),
    )
    said = {f" {statement}." for statement in (*DIRECTIONS, *TRENDS, *COMPARISONS)}
    openings = {view.split(" {")[0] for view in FIXED_VIEWS + MOVING_VIEWS}
    asked = {fixed.strip() for forms in QUESTIONS.values() for form in forms for fixed in re.split(r"{\w+}", form)}
    fixed = {"\nOptions:\n", *openings, *(f" {words}" for words in asked if " " in words)}
    return (*numbers, *(f" {name}" for name in FAMILIAR), *sorted(said | fixed))


PLAIN_QUESTIONS = (
    "What is {x} doing in this video?",
    "What happens after {x} {verb} {adverb}?",
    "Where does {x} go when {y} {verb} away?",
    "Describe how {x} moves and what happens at the end of the video.",
    "How many objects are {doing} at the same time, and how many are not?",
    "Is {x} closer to the camera than {y} at the beginning?",
    "Does {x} turn left or right before it {verb} {relation} {y}?",
    "Which object moves {relation} the camera first, and which {verb} {relation} it?",
    "Who or what is {doing} {relation} {x} while {y} {verb} {adverb}?",
    "Why is {x} {doing}? Explain your answer with one sentence.",
    "Can you tell me when {x} is nearest to {y}? Answer with a single letter.",
    "How fast would {x} be if it did not stop {doing}, and where could it be now?",
    "Does the camera move forward, backward, up, down, or does it rotate?",
    "Please count all of the {traits} things that have been {relation} {y} for more than {time}.",
    "What will {x} most likely do next, and in what direction?",
    "Which of these statements about {x} and {y} are true?",
    "Are there any people or animals {doing} {adverb} {relation} {x}?",
    "At what time does {x} start {doing}, and for how long?",
)
PLAIN_ANSWERS = (
    "{x} {verb} {relation} {y} and then stops.",
    "No, {x} is farther away than {y}.",
    "Yes, it turns to the left and {verb} {relation} {y}.",
    "The camera moves {adverb} forward and {x} stays in the middle of the scene.",
    "First it is on the right side, then it comes back to the same place, {doing} {adverb}.",
    "There are two of them: {x} and {y}.",
    "It speeds up until it reaches {y}, because {x} is {doing}.",
    "{x} is {relation} {y}; they do not touch each other.",
    "It is a {traits} one, and its distance grows from about {metres} m to {time}.",
    "I cannot see that in the video.",
)
FRAME = "system\nYou are a helpful assistant.\nuser\n{text}\nassistant\n"
ALPHABET = "Answer: " + " ".join(string.ascii_uppercase)


@dataclass(frozen=True)
class Item:
    """A question with four options, none of them true. `type` is one of `TYPES`, or "plain" without options."""

    type: str
    question: str
    options: tuple[str, ...] = ()


def items(count: int, seed: int = 0) -> Iterator[Item]:
    """`count` questions, the same ones for the same seed. One in five is an ordinary question."""
    random = Random(seed)
    for _ in range(count):
        if random.random() < 0.2:
            yield Item("plain", _fill(random, random.choice(PLAIN_QUESTIONS)))
        else:
            yield _item(random, random.choice(TYPES))


def corpus(count: int = 6000, seed: int = 0) -> Iterator[str]:
    """Whole prompts with an answer, framed as the prompt builder frames them, but without special tokens."""
    random = Random(seed)
    for item in items(count, seed):
        lines = [item.question]
        answer = random.choice(string.ascii_uppercase[:4])
        if item.options:
            lines += ["Options:", *(f"{letter} {o}" for letter, o in zip("ABCD", item.options, strict=True))]
        else:
            answer = _fill(random, random.choice(PLAIN_ANSWERS))
        yield FRAME.format(text="\n".join(lines)) + answer
        # Every letter must become one token, with and without a space before it; real text has almost no Q or X.
        yield ALPHABET


def _item(random: Random, type_: str) -> Item:
    scope, kind = type_.split("_", 1)
    view = random.choice(FIXED_VIEWS if scope == "abs" else MOVING_VIEWS)
    viewer = "the camera" if random.random() < 0.6 else _named(random, AGENTS)
    question = view.format(viewer=viewer, time=_interval(random)[0]) + _fill(random, random.choice(QUESTIONS[kind]))
    length = random.choice((1, 2, 2, 3, 3, 4, 5, 7))
    options = tuple(_numbered(random.choices(STATEMENTS[kind], k=length)) for _ in range(4))
    return Item(type_, question, options)


def _numbered(statements: Sequence[str]) -> str:
    return " ".join(f"({number}) {text}." for number, text in enumerate(statements, 1))


def _fill(random: Random, template: str) -> str:
    """Draws a word for every field that `template` may have."""
    start, end = _interval(random)
    x, y = _named(random, AGENTS + THINGS), _named(random, AGENTS + THINGS)
    return template.format(
        x=x,
        y=random.choice((y, y, y, "the camera")),
        when=random.choice(("between {} and {}", "from {} to {}")).format(start, end),
        end=end,
        time=start,
        verb=_present(random.choice(VERBS)),
        doing=_participle(random.choice(VERBS)),
        adverb=random.choice(ADVERBS),
        relation=random.choice(RELATIONS),
        traits=random.choice(TRAITS),
        metres=random.randrange(300) / 10,
    )


def _present(verb: str) -> str:
    return (
        verb + "es" if verb.endswith(("ch", "sh", "ss")) else verb[:-1] + "ies" if verb.endswith("ry") else verb + "s"
    )


def _participle(verb: str) -> str:
    """Good enough for merges: `moving`, `running`; a wrong doubling does no harm."""
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    doubled = len(verb) <= 4 and verb[-1] in "bgmnpt" and verb[-2] in "aeiou" and verb[-3:-2] not in "aeiou"
    return verb + (verb[-1] if doubled else "") + "ing"


def _named(random: Random, nouns: Sequence[str]) -> str:
    """`the red car [12, 40, 88, 120]`: class, often with a colour or a trait, and its box in pixels."""
    traits = random.choices(TRAITS, k=int(random.random() < 0.2))
    colours = random.choices(COLOURS, k=int(random.random() < 0.6))
    left, top, width, height = (random.randrange(limit) for limit in (1600, 900, 320, 180))
    name = " ".join(["the", *traits, *colours, random.choice(nouns)])
    return f"{name} [{left}, {top}, {left + width}, {top + height}]"


def _interval(random: Random) -> tuple[str, str]:
    start = random.randrange(300) / 10
    unit = random.choice(("s", "s", "s", "seconds"))
    return f"{start:.1f} {unit}", f"{start + random.randrange(5, 300) / 10:.1f} {unit}"
