"""The words of the task battery that the micro-world does not have, by kind. Data only.

An entry of several forms is one word of that kind: `hammer/hammers` counts as usable where each form is one token.
"""

from __future__ import annotations

from types import MappingProxyType

from mneme.lexicon import AGREEING_NOUNS, CAPITALS


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _counted(text: str) -> tuple[str, ...]:
    """`singular/plural` of each; a word without its own plural gets an s, `word=` has the same form in both."""
    forms = []
    for word in text.split():
        singular, _, plural = word.partition("/")
        forms.append(f"{singular[:-1]}/{singular[:-1]}" if word.endswith("=") else f"{singular}/{plural or word + 's'}")
    return tuple(forms)


# Category -> its exemplars; the names begin with a consonant, so that 'a' stands before each.
EXEMPLARS = MappingProxyType(
    {
        "fruit/fruits": _counted(
            "apple banana lemon peach/peaches grape cherry/cherries pear mango melon plum strawberry/strawberries fig"
        ),
        "vegetable/vegetables": _counted("carrot onion potato/potatoes tomato/tomatoes cabbage bean pea pepper turnip"),
        "bird/birds": _counted("robin eagle sparrow hawk owl crow swan goose/geese falcon pigeon parrot duck"),
        "tool/tools": _counted("hammer saw drill wrench/wrenches shovel axe/axes chisel screw/screws knife/knives"),
        "vehicle/vehicles": _counted("car truck bus/buses van boat bike train taxi tractor wagon"),
        "metal/metals": _counted(
            "gold= silver= iron= copper= tin= steel= lead= zinc= brass= bronze= nickel= aluminum="
        ),
        "color/colors": _counted("red= blue= green= yellow= purple= pink= brown= gray= white= black="),
        "flower/flowers": _counted("rose tulip daisy/daisies lily/lilies orchid violet poppy/poppies daffodil"),
        "drink/drinks": _counted("tea= coffee= juice= wine= beer= milk= soda= water= vodka= rum="),
        "sport/sports": _counted("football= tennis= golf= hockey= soccer= basketball= baseball= boxing= rugby="),
        "weapon/weapons": _counted("gun rifle sword bomb spear pistol dagger cannon bow"),
        "language/languages": _counted("English= French= German= Spanish= Italian= Russian= Chinese= Japanese= Latin="),
        "month/months": _counted("January= February= April= June= July= August= September= October= November="),
        "country/countries": _counted("France= Germany= Italy= Spain= Japan= China= Egypt= Greece= Norway= Canada="),
    }
)

# Zhao et al. 2018 (WinoBias) name the occupations of either stereotype; the definitional words say the gender.
ROLES = MappingProxyType(
    {
        "stereotypical male": _words(
            "driver supervisor janitor cook mover laborer worker chief developer carpenter manager lawyer farmer "
            "salesman physician guard analyst mechanic sheriff executive engineer soldier pilot plumber captain "
            "doctor guitarist surgeon banker miner"
        ),
        "stereotypical female": _words(
            "attendant cashier teacher nurse assistant secretary auditor cleaner receptionist clerk counselor designer "
            "hairdresser writer housekeeper baker accountant editor librarian tailor dancer nanny model florist "
            "therapist maid singer babysitter"
        ),
        "definitional male": _words(
            "king prince father brother uncle son boy man husband gentleman waiter monk lord duke emperor grandfather "
            "nephew groom widower wizard grandson priest businessman policeman"
        ),
        "definitional female": _words(
            "queen princess mother sister aunt daughter girl woman wife lady waitress nun duchess empress grandmother "
            "niece bride widow witch actress granddaughter hostess goddess mistress"
        ),
    }
)

TASK_LEXICON = MappingProxyType(
    {
        **ROLES,
        **EXEMPLARS,
        "categories": tuple(EXEMPLARS),
        "capitals of countries": tuple(f"{country}/{city}" for country, city in CAPITALS.items()),
        "counted nouns": tuple(f"{one}/{many}" for one, many in AGREEING_NOUNS.items()),
        "past verbs": _words(
            "laughed cried smiled left stayed waited ran slept worked spoke shouted stopped sang fell paused hurried "
            "whispered nodded sighed agreed refused returned arrived walked jumped danced travelled called knocked "
            "disappeared apologized lied"
        ),
        "feelings": _words("liked knew saw helped met hated admired followed called found loved visited"),
        "made-up nouns": _words(
            "wug dax fep blick zib tove mip gorp snarp plim drant vorp kelt brif glon quib stam frup yop nerp tulb "
            "pask crund hibe jeft lorg morb sploon trib flet"
        ),
        "counts": _words("two three four five six seven eight nine ten"),
    }
)
