"""The 49 languages of Global-MMLU and MMLU-ProX: names, scripts, families, resource levels, codes in other data sets.

A read-only table without imports from the package. Script, family, branch and resource level follow COMPASS, appendix B.
GlotLID labels are those of its version 3. A pool may also hold rows of other, auxiliary languages; their code is the
ISO 639-3 code.
"""

import difflib
import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Resource = Literal["high", "mid", "low"]
LABEL_PREFIX = "__label__"
"""Prefix of every label of a fastText model."""


@dataclass(frozen=True, slots=True)
class Language:
    """One language and its codes in each data source.

    `code` is the configuration name in Global-MMLU or MMLU-ProX, which agree where both have the language; `aya_code` and
    `aya_name` are the `language_code` and `language` fields of the Aya data set; `glotlid` lists the identifier's labels
    that count as this language, the canonical one first.
    """

    code: str
    name: str
    native_name: str
    script: str
    family: str
    branch: str
    resource: Resource
    aya_code: str
    aya_name: str
    glotlid: tuple[str, ...]


class UnknownLanguageError(ValueError):
    """A language code is not one of the 49; the message names the closest ones."""


# code | name | native name | script | family | branch | resource | Aya code | Aya name where it differs | GlotLID labels
# Afrikaans is not in the paper's table: `mid` is our own estimate. The paper leaves the branch of Hungarian open.
_TABLE = """
af | Afrikaans | Afrikaans | Latin | Indo-European | Germanic | mid | afr | | afr_Latn
am | Amharic | አማርኛ | Ethiopic | Afro-Asiatic | Semitic | low | amh | | amh_Ethi
ar | Arabic | العربية | Arabic | Afro-Asiatic | Semitic | high | arb | Standard Arabic | arb_Arab arz_Arab ary_Arab apc_Arab\
 ajp_Arab acm_Arab aeb_Arab ars_Arab acq_Arab afb_Arab arq_Arab ayl_Arab
bn | Bengali | বাংলা | Bengali | Indo-European | Indo-Aryan | mid | ben | | ben_Beng
cs | Czech | čeština | Latin | Indo-European | Balto-Slavic | high | ces | | ces_Latn
de | German | Deutsch | Latin | Indo-European | Germanic | high | deu | | deu_Latn
el | Greek | Ελληνικά | Greek | Indo-European | Graeco-Phrygian | mid | ell | | ell_Grek
en | English | English | Latin | Indo-European | Germanic | high | eng | | eng_Latn
es | Spanish | español | Latin | Indo-European | Italic | high | spa | | spa_Latn
fa | Persian | فارسی | Arabic | Indo-European | Iranian | high | pes | Iranian Persian | fas_Arab
fil | Filipino | Filipino | Latin | Austronesian | Malayo-Polynesian | mid | fil | | fil_Latn tgl_Latn
fr | French | français | Latin | Indo-European | Italic | high | fra | | fra_Latn
ha | Hausa | Hausa | Latin | Afro-Asiatic | Chadic | low | hau | | hau_Latn
he | Hebrew | עברית | Hebrew | Afro-Asiatic | Semitic | mid | heb | | heb_Hebr
hi | Hindi | हिन्दी | Devanagari | Indo-European | Indo-Aryan | high | hin | | hin_Deva
hu | Hungarian | magyar | Latin | Uralic | Hungarian | high | hun | | hun_Latn
id | Indonesian | Indonesia | Latin | Austronesian | Malayo-Polynesian | mid | ind | | ind_Latn
ig | Igbo | Igbo | Latin | Atlantic-Congo | Benue-Congo | low | ibo | | ibo_Latn
it | Italian | italiano | Latin | Indo-European | Italic | high | ita | | ita_Latn
ja | Japanese | 日本語 | Japanese | Japonic | Japonic | high | jpn | | jpn_Jpan
ko | Korean | 한국어 | Hangul | Koreanic | Korean | mid | kor | | kor_Hang
ky | Kyrgyz | кыргызча | Cyrillic | Turkic | Common Turkic | low | kir | | kir_Cyrl
lt | Lithuanian | lietuvių | Latin | Indo-European | Balto-Slavic | mid | lit | | lit_Latn
mg | Malagasy | Malagasy | Latin | Austronesian | Malayo-Polynesian | low | plt | Plateau Malagasy | plt_Latn
mr | Marathi | मराठी | Devanagari | Indo-European | Indo-Aryan | low | mar | | mar_Deva
ms | Malay | Melayu | Latin | Austronesian | Malayo-Polynesian | mid | zsm | Standard Malay | zsm_Latn
ne | Nepali | नेपाली | Devanagari | Indo-European | Indo-Aryan | low | npi | | npi_Deva
nl | Dutch | Nederlands | Latin | Indo-European | Germanic | high | nld | | nld_Latn
ny | Chichewa | Chichewa | Latin | Atlantic-Congo | Benue-Congo | low | nya | Nyanja | nya_Latn
pl | Polish | polski | Latin | Indo-European | Balto-Slavic | high | pol | | pol_Latn
pt | Portuguese | português | Latin | Indo-European | Italic | high | por | | por_Latn
ro | Romanian | română | Latin | Indo-European | Italic | mid | ron | | ron_Latn
ru | Russian | русский | Cyrillic | Indo-European | Balto-Slavic | high | rus | | rus_Cyrl
si | Sinhala | සිංහල | Sinhala | Indo-European | Indo-Aryan | low | sin | | sin_Sinh
sn | Shona | chiShona | Latin | Atlantic-Congo | Benue-Congo | low | sna | | sna_Latn
so | Somali | Soomaali | Latin | Afro-Asiatic | Cushitic | low | som | | som_Latn
sr | Serbian | српски | Cyrillic | Indo-European | Balto-Slavic | high | srp | | srp_Cyrl srp_Latn
sv | Swedish | svenska | Latin | Indo-European | Germanic | mid | swe | | swe_Latn
sw | Swahili | Kiswahili | Latin | Atlantic-Congo | Benue-Congo | low | swh | | swh_Latn swc_Latn
te | Telugu | తెలుగు | Telugu | Dravidian | South Dravidian | low | tel | | tel_Telu
th | Thai | ไทย | Thai | Tai-Kadai | Kam-Tai | mid | tha | | tha_Thai
tr | Turkish | Türkçe | Latin | Turkic | Common Turkic | high | tur | | tur_Latn
uk | Ukrainian | українська | Cyrillic | Indo-European | Balto-Slavic | mid | ukr | | ukr_Cyrl
ur | Urdu | اردو | Arabic | Indo-European | Indo-Aryan | mid | urd | | urd_Arab
vi | Vietnamese | Tiếng Việt | Latin | Austroasiatic | Vietic | high | vie | | vie_Latn
wo | Wolof | Wolof | Latin | Atlantic-Congo | North-Central Atlantic | low | wol | | wol_Latn
yo | Yoruba | Èdè Yorùbá | Latin | Atlantic-Congo | Benue-Congo | low | yor | | yor_Latn
zh | Chinese | 中文 | Han | Sino-Tibetan | Sinitic | high | zho | Simplified Chinese | cmn_Hani
zu | Zulu | isiZulu | Latin | Atlantic-Congo | Benue-Congo | low | zul | | zul_Latn
"""

_GLOBAL_MMLU = """
am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt
mg ms ne nl ny pl pt ro ru si sn so sr sv sw te tr uk vi yo zh
"""
_MMLU_PROX = "af ar bn cs de en es fr hi hu id it ja ko mr ne pt ru sr sw te th uk ur vi wo yo zh zu"

GLOBAL_MMLU: tuple[str, ...] = tuple(_GLOBAL_MMLU.split())
"""The 42 languages of Global-MMLU, in alphabetical order of code; the atlas has them too."""

MMLU_PROX: tuple[str, ...] = tuple(_MMLU_PROX.split())
"""The 29 languages of MMLU-ProX, in alphabetical order of code; 22 of them are in Global-MMLU as well."""


def _parse(line: str) -> Language:
    code, name, native, script, family, branch, resource, aya_code, aya_name, labels = (
        field.strip() for field in line.split("|")
    )
    levels: dict[str, Resource] = {"high": "high", "mid": "mid", "low": "low"}
    return Language(
        code=code,
        name=name,
        native_name=native,
        script=script,
        family=family,
        branch=branch,
        resource=levels[resource],
        aya_code=aya_code,
        aya_name=aya_name or name,
        glotlid=tuple(labels.split()),
    )


LANGUAGES: Mapping[str, Language] = MappingProxyType({parsed.code: parsed for parsed in map(_parse, _TABLE.strip().splitlines())})
"""All 49 languages by code, in alphabetical order of code."""

_BY_AYA = MappingProxyType({each.aya_code: each.code for each in LANGUAGES.values()})
_BY_GLOTLID = MappingProxyType({label: each for each in LANGUAGES.values() for label in each.glotlid})
_BY_LABEL_CODE = MappingProxyType({label.partition("_")[0]: each.code for label, each in _BY_GLOTLID.items()})
"""Our code by the ISO 639-3 code of an identifier label, such as that of an Arabic dialect."""
_NOT_SERBIAN = frozenset(("sh", "hbs", "cnr"))
"""Codes of Serbo-Croatian and Montenegrin. CLDR counts them as Serbian; as labels they also mark Croatian and Bosnian texts."""
_SEVERAL = """
aka aym aze bod cre cym dzo est eus ful grn guj hrv hye iku ipk isl kat kau kom kon kur
lav mkd mon mri mya oji ori orm pus que san slk sqi srd uzb yid zha
"""
_OFFICIAL = frozenset(_SEVERAL.split())
"""ISO 639-3 codes of two-letter codes for which CLDR lists several codes."""


def get_language(code: str) -> Language:
    """Return the language of a code.

    Raises UnknownLanguageError, with the closest code, for an unknown code.

    >>> get_language("sw").name
    'Swahili'
    """
    if code in LANGUAGES:
        return LANGUAGES[code]
    raise UnknownLanguageError(f"unknown language {code!r}: {_suggestion(code)}")


def _suggestion(given: str) -> str:
    if code := nearest_code(given):
        name = LANGUAGES[code].name
        return f"did you mean {code!r} ({name})? Codes are those of Global-MMLU and MMLU-ProX: {', '.join(LANGUAGES)}"
    return f"expected one of the codes of Global-MMLU and MMLU-ProX, {', '.join(LANGUAGES)}"


def nearest_code(given: str) -> str | None:
    """Our code of the language that a spelling most probably means; None if it is similar to none.

    >>> nearest_code("Swahilli"), nearest_code("fas"), nearest_code("qqqqq")
    ('sw', 'fa', None)
    """
    spellings = {spelling.lower(): each for each in LANGUAGES.values() for spelling in _spellings(each)}
    close = difflib.get_close_matches(given.lower(), spellings, n=1, cutoff=0.6)
    return find_code(given) or (spellings[close[0]].code if close else None)


def describe_spellings(counts: Mapping[str, int], most: int = 5) -> str:
    """Rows by the language as it is written, with the nearest code where it differs, for messages.

    >>> describe_spellings({"Swahili": 2, "hi": 1})
    "2 rows of 'Swahili' (nearest code 'sw'), 1 rows of 'hi'"
    """
    listed = [f"{count} rows of {spelled!r}{_nearest_note(spelled)}" for spelled, count in counts.items()]
    return ", ".join(listed[:most] + ([f"and {len(listed) - most} others"] if len(listed) > most else []))


def _nearest_note(spelled: str) -> str:
    code = nearest_code(spelled)
    return f" (nearest code {code!r})" if code and code != spelled else ""


def _spellings(language: Language) -> tuple[str, ...]:
    return (language.code, language.name, language.native_name, language.aya_code, language.aya_name, *language.glotlid)


def find_code(spelled: str) -> str | None:
    """Our code of a language under any of its codes; None if it has none of the 49.

    Known are our own codes, those of Aya, ISO 639 codes with their former, bibliographic and macrolanguage forms, the
    languages that the identifier counts as one of ours, and tags with a script or a region. Case does not count.

    >>> find_code("swa"), find_code("arz"), find_code("zh-CN"), find_code("iw"), find_code("bul")
    ('sw', 'ar', 'zh', 'he', None)
    """
    code = _without_region(spelled)
    found = _BY_AYA.get(code) or _BY_LABEL_CODE.get(code) or _without_region(_cldr_aliases().get(code, code))
    return found if found in LANGUAGES else None


def _without_region(tag: str) -> str:
    """The language of a tag, without its script and region."""
    return re.split("[-_]", tag.strip().lower(), maxsplit=1)[0]


def _cldr_aliases() -> Mapping[str, str]:
    """Present codes by former, bibliographic, macrolanguage and overlong ones. Some have a script or a region."""
    from babel.core import get_global

    aliases: Mapping[str, str] = get_global("language_aliases")
    return aliases


def pool_code(spelled: str) -> str | None:
    """The code of a language in a pool: ours under any of its codes, else the ISO 639-3 code; None for anything else.

    A two-letter code of an auxiliary language becomes its ISO 639-3 code. Scripts and regions do not count.

    >>> pool_code("ara"), pool_code("bul"), pool_code("bg-BG"), pool_code("Klingon")
    ('ar', 'bul', 'bul', None)
    """
    code = _without_region(spelled)
    try:
        return find_code(spelled) or _three_letter_codes().get(code) or from_aya(code)
    except UnknownLanguageError:
        return None


@functools.cache
def _three_letter_codes() -> Mapping[str, str]:
    """ISO 639-3 codes of auxiliary languages by their two-letter codes."""
    spelled = {code: short for code, short in _cldr_aliases().items() if len(code) == 3 and len(short) == 2}
    several = Counter(spelled.values())
    return {short: code for code, short in spelled.items() if several[short] == 1 or code in _OFFICIAL}


def from_aya(code: str) -> str:
    """Return the language of an Aya `language_code`: our code, or the ISO 639-3 code itself if auxiliary.

    Raises UnknownLanguageError if the value is not three lower-case letters.

    >>> from_aya("swh"), from_aya("bul")
    ('sw', 'bul')
    """
    if code in _BY_AYA:
        return _BY_AYA[code]
    if len(code) == 3 and code.isascii() and code.isalpha() and code.islower():
        return code
    raise UnknownLanguageError(
        f"not an Aya language_code: {code!r}: expected an ISO 639-3 code such as 'swh'; {_suggestion(code)}"
    )


def from_label(label: str) -> Language | None:
    """Return the language of an identifier's label, with or without its `__label__` prefix; None if it is not in the table.

    Known are the labels of GlotLID, NLLB and FLORES (`zho_Hans`), and every code of `find_code`, such as those of lid.176. The
    script of a label does not count. Labels of Serbo-Croatian and Montenegrin are not Serbian.

    >>> [from_label(each).code for each in ("__label__arz_Arab", "zho_Hans", "per", "pes_Arab", "__label__tl")]
    ['ar', 'zh', 'fa', 'fa', 'fil']
    """
    name = label.removeprefix(LABEL_PREFIX)
    if _without_region(name) in _NOT_SERBIAN:
        return None
    return _BY_GLOTLID.get(name) or LANGUAGES.get(find_code(name) or "")
