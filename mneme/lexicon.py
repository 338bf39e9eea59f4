"""The words that behaviors are told with, by kind. Data only."""

from __future__ import annotations

from types import MappingProxyType


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CAPITALS = MappingProxyType(
    dict(
        pair.split(":")
        for pair in _words(
            "France:Paris Germany:Berlin Italy:Rome Spain:Madrid Japan:Tokyo China:Beijing Russia:Moscow Egypt:Cairo "
            "Greece:Athens Poland:Warsaw Austria:Vienna Ireland:Dublin Norway:Oslo Sweden:Stockholm Turkey:Ankara "
            "Iran:Tehran Iraq:Baghdad Syria:Damascus Lebanon:Beirut Kenya:Nairobi Cuba:Havana Portugal:Lisbon "
            "Belgium:Brussels Hungary:Budapest Denmark:Copenhagen Finland:Helsinki Ukraine:Kiev England:London "
            "Scotland:Edinburgh Wales:Cardiff Canada:Ottawa Peru:Lima Chile:Santiago Venezuela:Caracas Qatar:Doha "
            "Libya:Tripoli Pakistan:Islamabad Afghanistan:Kabul India:Delhi Thailand:Bangkok Vietnam:Hanoi Korea:Seoul "
            "Taiwan:Taipei Indonesia:Jakarta Bulgaria:Sofia Romania:Bucharest Serbia:Belgrade Armenia:Yerevan"
        )
    )
)

# Nouns with a plural that another word spells, and verbs likewise: singular:plural.
AGREEING_NOUNS = MappingProxyType(
    dict(
        pair.split(":")
        for pair in _words(
            "teacher:teachers doctor:doctors author:authors driver:drivers farmer:farmers lawyer:lawyers "
            "singer:singers writer:writers player:players officer:officers manager:managers student:students "
            "king:kings artist:artists soldier:soldiers pilot:pilots actor:actors guard:guards judge:judges "
            "dancer:dancers"
        )
    )
)
AGREEING_VERBS = MappingProxyType(
    dict(
        pair.split(":")
        for pair in _words(
            "walks:walk runs:run sings:sing smiles:smile waits:wait sleeps:sleep laughs:laugh works:work "
            "swims:swim jumps:jump speaks:speak writes:write reads:read eats:eat drinks:drink drives:drive "
            "plays:play dances:dance listens:listen travels:travel"
        )
    )
)

CATEGORIES = MappingProxyType(
    {
        "animal": _words("dog cat horse cow sheep lion tiger bear wolf rabbit mouse snake"),
        "fruit": _words("apple banana orange lemon peach grape cherry pear mango melon plum berry"),
        "tool": _words("hammer knife drill saw axe shovel wrench rope nail screw brush needle"),
        "vehicle": _words("car bus train truck boat plane bike van taxi ship tractor wagon"),
        "metal": _words("gold silver iron copper tin steel lead zinc brass bronze nickel aluminum"),
        "organ": _words("heart brain liver lung stomach skin bone muscle nerve eye ear tongue"),
    }
)

LEXICON = MappingProxyType(
    {
        "names": _words(
            "Mary John Tom James Dan Sarah Mark Paul Anna Alice Bob Jack Emma Kate Lucy Peter Simon David Laura Susan "
            "Kevin Brian Steve Adam Henry George Frank Alan Eric Jason Amy Jane Ruth Rose Grace Helen Linda Karen Lisa "
            "Nancy Carl Fred Harry Ian Jake Kyle Luke Max Neil Oscar Ray Sam Scott Sean Tim Victor Walter Andrew Chris "
            "Diana Ellen Maria Martin"
        ),
        "places": _words(
            "store park school garden station hospital restaurant office house church museum library market theater "
            "beach bank hotel farm castle airport factory stadium tower bridge"
        ),
        "gifts": _words(
            "drink ring kiss basketball computer letter ticket book phone watch guitar camera hat coat gift flower "
            "cake toy map coin key bag card poem"
        ),
        "objects": _words(
            "pen cup plate spoon bottle lamp mirror chair clock pillow blanket vase candle basket bowl fork towel "
            "wallet purse pencil jacket sock shoe glove scarf belt button bucket ladder kettle"
        ),
        "colors": _words("red blue green yellow black white brown purple pink gray orange silver"),
        "nouns": _words(
            "window river forest mountain cloud stone leaf branch road field lake island valley desert storm rain snow "
            "wind fire smoke shadow sand wave hill tree grass seed root nest egg feather wing shell tail horn honey "
            "bread butter cheese milk sugar salt pepper soup meat rice corn bean onion carrot cabbage tomato potato "
            "table desk wall floor roof door gate fence garage kitchen bedroom drum violin piano flute trumpet bell "
            "paper ink page story song picture movie game puzzle doll ball kite balloon crown sword shield arrow bow "
            "helmet uniform flag medal prize trophy palace temple village city street corner square tunnel"
        ),
        "codes": _words(
            "alpha beta gamma delta sigma omega echo tango victor radar whiskey zulu amber coral ivory jade onyx opal "
            "pearl ruby topaz cobalt crimson indigo violet magenta olive maroon khaki beige comet meteor planet orbit "
            "rocket galaxy nebula eclipse saturn venus pluto mars mercury jupiter neptune uranus titan atlas"
        ),
        "containers": _words(
            "jar mug glass pot pan barrel tank tray tub pitcher flask can crate drawer chest sack bin jug basin trunk "
            "pouch cooler keg vial carton locker vault cabinet dish tube"
        ),
        "liquids": _words(
            "tea coffee water juice wine beer oil vinegar cream broth syrup paint petrol soda cider rum vodka gin "
            "sauce glue fuel lotion soap gasoline bleach ketchup mustard mud blood yogurt"
        ),
        "labels": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        "events": _words(
            "war siege famine drought plague strike trial voyage reign project festival crisis journey tour campaign "
            "program contest debate mission conflict empire alliance treaty expedition revolt survey boom ban "
            "rebellion reform tournament winter"
        ),
        "centuries": tuple(str(each) for each in range(11, 20)),
        "years": tuple(f"{each:02d}" for each in range(100)),
        "arguments": _words(
            "size name value index count total width height offset length limit factor state mode result item node "
            "path line token level order shape target source input output buffer shift scale rate step user group "
            "label date time query column"
        ),
        "countries": tuple(CAPITALS),
        "capitals": tuple(CAPITALS.values()),
        "singular_nouns": tuple(AGREEING_NOUNS),
        "plural_nouns": tuple(AGREEING_NOUNS.values()),
        "singular_verbs": tuple(AGREEING_VERBS),
        "plural_verbs": tuple(AGREEING_VERBS.values()),
        **{f"{category}s": members for category, members in CATEGORIES.items()},
    }
)
