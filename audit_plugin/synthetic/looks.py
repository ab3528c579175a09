"""How drawn persons can look: each attribute's values, the drawing parts that show them and their words."""

from __future__ import annotations

from dataclasses import dataclass

SKINS = {"fair": "#ffdbb4", "tanned": "#d08b5b", "brown": "#ae5d29", "dark": "#614335"}
BACKDROPS = {"pale blue": "#cfe4f7", "pale green": "#d0edce", "cream": "#f8f0d2"}
BACKDROPS |= {"lavender": "#dcd0f2", "peach": "#fbd3b8", "light grey": "#d9dcdf"}
HAIR_COLORS = {"black": "#241c1c", "brown": "#6f4028", "blonde": "#e0b653", "red": "#c93305"}
HAIR_COLORS |= {"grey": "#a9adb6", "pink": "#f0709c", "blue": "#3a62c8", "green": "#3f9a58"}
FABRICS = {"black": "#262e33", "white": "#ffffff", "red": "#d8343a", "blue": "#3f7fd9"}
FABRICS |= {"navy": "#1f3a73", "yellow": "#f7cf3d", "green": "#3fa34d", "orange": "#f28a2e"}
FABRICS |= {"purple": "#7d4fb0", "pink": "#ff6fa8", "grey": "#86898c", "turquoise": "#2fb8b0"}


@dataclass(frozen=True)
class Look:
    """One value of an attribute.

    Attributes:
        name: the attribute's value; looks of one name look alike.
        parts: drawing parts, any of which shows it.
        phrases: how it is said; `{c}` stands for the color.
        clash: color that its own color must stand out from, "" for none.
        tags: `hat` (no hair to be seen), `plain` (has no color of its own), `smooth` (goes with no beard),
            `dark` (hides the eyes), `eyes` (is seen by the eyes), `covered` and `drape` (a scarf over the shoulders,
            hair over the chest), `chin` (hides the neck), `neck` and `picture` (seen by the neck, on the chest).
    """

    name: str
    parts: tuple[str, ...]
    phrases: tuple[str, ...]
    clash: str = ""
    tags: frozenset[str] = frozenset()


def _look(name: str, parts: str, phrases: str, clash: str = "", tags: str = "") -> Look:
    return Look(name, tuple(parts.split()), tuple(phrases.split("|")), clash, frozenset(tags.split()))


HAIRS = (
    _look("long", "STRAIGHT_1 STRAIGHT_STRAND LONG_NOT_TOO_LONG", "long straight {c} hair|sleek long {c} hair"),
    _look("wavy", "CURVY BIG_HAIR", "long wavy {c} hair|flowing {c} waves", tags="smooth drape"),
    _look("bob", "BOB MIA_WALLACE", "a {c} bob|chin-length {c} hair", tags="smooth"),
    _look("bun", "BUN", "{c} hair tied up in a bun|a {c} bun", tags="smooth"),
    _look("afro", "FRO", "a big {c} afro|a huge round {c} afro"),
    _look("curls", "CURLY", "voluminous {c} curls|thick curly {c} hair"),
    _look("dreads", "DREADS", "long {c} dreadlocks|{c} dreads", tags="drape"),
    _look("frizzy", "SHORT_DREADS_2", "frizzy {c} hair|a frizzy {c} mop of hair"),
    _look(
        "short", "CAESAR SHORT_FLAT SHORT_ROUND BUZZCUT", "short {c} hair|close-cropped {c} hair|a short {c} haircut"
    ),
    _look("mohawk", "MOHAWK", "a {c} mohawk|a narrow {c} mohawk"),
    _look("sides", "SIDES", "a bald crown with {c} hair at the sides|a bald top and {c} hair above the ears"),
    _look("bald", "NONE", "a bald head|a shaved head|no hair at all", tags="plain"),
    _look("quiff", "QUIFF POMPADOUR ELVIS", "a {c} quiff|{c} hair combed up into a quiff"),
    _look("braids", "CORNROWS TWIST_LONG_HAIR", "{c} braids|tightly braided {c} hair"),
    _look("pigtails", "DREADLOCKS", "two short {c} pigtails|braided {c} pigtails", tags="smooth"),
    _look("messy", "MOWGLI WILD EINSTEIN_HAIR", "messy {c} hair|wild {c} hair|tousled {c} hair"),
    _look("flowers", "FRIDA", "flowers in {c} hair|a crown of flowers on {c} hair", tags="smooth"),
    _look("mullet", "SHAGGY_MULLET", "a shaggy {c} mullet|a {c} mullet"),
)
HATS = (
    _look("brimmed hat", "HAT", "a wide-brimmed {c} hat|a {c} hat with a wide brim", "#262e33", "hat"),
    _look("headscarf", "HIJAB", "a {c} headscarf|a {c} hijab", tags="hat smooth covered"),
    _look("turban", "TURBAN", "a {c} turban", tags="hat"),
    _look("ear flaps", "WINTER_HAT_1", "a {c} winter hat with ear flaps|a {c} trapper hat", "#ffffff", "hat"),
    _look(
        "knitted hat",
        "WINTER_HAT_2",
        "a knitted {c} hat with tassels|a {c} knit hat with a zigzag pattern",
        "#ffffff",
        "hat",
    ),
    _look("beanie", "WINTER_HAT_3", "a {c} beanie with a white rim|a {c} and white beanie", "#ffffff", "hat"),
    _look("cat hat", "WINTER_HAT_4", "a {c} hat with cat ears|a {c} cat-eared beanie", "#ffffff", "hat"),
    _look("chef's hat", "CHEF_CAP", "a white chef's hat|a tall white cook's hat", tags="hat plain"),
)
BEARDS = (
    _look("short beard", "BEARD_LIGHT", "a short {c} beard|a trimmed {c} beard"),
    _look("full beard", "BEARD_MEDIUM", "a full {c} beard|a thick {c} beard"),
    _look("long beard", "BEARD_MAGESTIC", "a long {c} beard|a bushy {c} beard", tags="chin"),
    _look("moustache", "MOUSTACHE_FANCY MOUSTACHE_MAGNUM", "a {c} moustache|a curved {c} moustache"),
)
GLASSES = (
    _look("glasses", "PRESCRIPTION_2", "black-rimmed glasses|glasses with thick black frames|dark-framed glasses"),
    _look("round glasses", "ROUND", "round glasses|round spectacles|thin round glasses"),
    _look("sunglasses", "SUNGLASSES WAYFARERS", "sunglasses|dark sunglasses|black shades", tags="dark"),
    _look("white sunglasses", "KURT", "white-framed sunglasses|sunglasses with white frames", tags="dark"),
    _look("eyepatch", "EYEPATCH", "an eyepatch|a black eyepatch", tags="dark"),
)
CLOTHES = (
    _look("T-shirt", "SHIRT_CREW_NECK SHIRT_SCOOP_NECK", "a {c} T-shirt|a plain {c} tee|a plain {c} top"),
    _look("V-neck", "SHIRT_V_NECK", "a {c} V-neck shirt|a {c} V-neck", tags="neck"),
    _look("hoodie", "HOODIE", "a {c} hoodie|a {c} hooded sweatshirt"),
    _look("overalls", "OVERALL", "{c} overalls|{c} dungarees"),
    _look(
        "sweater",
        "COLLAR_SWEATER",
        "a {c} sweater with a white collar|a {c} pullover over a white collar",
        "#ffffff",
        "neck",
    ),
    _look("blazer", "BLAZER_SHIRT", "a dark blazer over a {c} shirt|a dark jacket and a {c} shirt", "#3c4f5c", "neck"),
    _look("suit", "SHIRT_WICK", "a black suit with a {c} tie|a dark suit with a {c} tie", "#ffffff", "neck"),
    _look(
        "tuxedo",
        "BOND_SUIT",
        "a tuxedo with a bow tie and a {c} shirt|a black jacket with a bow tie over a {c} shirt",
        "#1d1d1d",
        "neck",
    ),
)
PRINTS = tuple(
    _look(
        f"print of {what}",
        f"GRAPHIC_SHIRT:{what.split()[-1].upper()}",
        f"a {{c}} T-shirt with {what} on it|a {{c}} tee showing {what}",
        "#ffffff",
        "picture",
    )
    for what in ("a bat", "a bear", "a deer", "a diamond", "a slice of pizza", "a skull")
)
# A mood's parts are mouth:eyes:eyebrows; its phrases before ";" go before the noun, those after it stand alone.
MOODS = (
    _look(
        "smiling",
        "SMILE:DEFAULT:DEFAULT TWINKLE:HAPPY:DEFAULT BIG_SMILE:HAPPY:DEFAULT",
        "smiling|cheerful|happy;a smile|a happy look|a cheerful expression",
    ),
    _look("sad", "SAD:DEFAULT:SAD_CONCERNED", "sad|unhappy|gloomy;a sad look|a gloomy expression"),
    _look("crying", "SAD:CRY:SAD_CONCERNED", "crying|tearful|weeping;a tear on the cheek|a teary face", tags="eyes"),
    _look(
        "surprised",
        "DISBELIEF:SURPRISED:RAISED_EXCITED",
        "surprised|astonished|startled;wide-open eyes|a surprised look",
        tags="eyes",
    ),
    _look("serious", "SERIOUS:DEFAULT:FLAT_NATURAL", "serious|unsmiling|solemn;a serious look|a straight face"),
    _look("angry", "GRIMACE:DEFAULT:ANGRY", "angry|furious|irritated;clenched teeth|bared teeth", tags="eyes"),
    _look("winking", "TWINKLE:WINK:DEFAULT SMILE:WINK:DEFAULT", "winking;a cheeky wink|one eye winking", tags="eyes"),
    _look("silly", "TONGUE:DEFAULT:DEFAULT", "silly|playful;the tongue sticking out|a stuck-out tongue"),
    _look(
        "in love", "SMILE:HEART:DEFAULT", "love-struck|infatuated;red hearts for eyes|heart-shaped eyes", tags="eyes"
    ),
    _look("asleep", "SERIOUS:CLOSED:DEFAULT", "sleepy|drowsy;closed eyes|both eyes shut", tags="eyes"),
)
