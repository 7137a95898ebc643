"""The territories and languages the atlas asks about: the M49 regions, and choices CLDR's tables leave open.

Written by hand because Babel carries CLDR's names, currencies, zones and languages of territories but not the containment of
territories in regions (UN M49). Order within a region is order of use: a smaller atlas takes the first ones. It is not a
gazetteer: a territory is listed because its names are in CLDR for nearly every language of the atlas.
"""

from collections.abc import Mapping
from types import MappingProxyType

SUBREGIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "africa": {
            "014": "KE TZ UG ET RW MG MZ ZM SO ZW",
            "011": "NG GH SN ML CI NE BJ TG",
            "015": "EG MA DZ TN LY SD",
            "017": "CM CD AO TD GA CG",
            "018": "ZA NA BW LS SZ",
        },
        "americas": {
            "005": "BR AR CL PE CO VE EC BO PY UY SR",
            "013": "MX HN NI CR GT PA SV BZ",
            "029": "CU HT DO JM TT BS BB",
            "021": "US CA GL",
        },
        "asia": {
            "034": "IN PK BD NP LK AF IR",
            "035": "ID TH VN PH MM KH LA MY",
            "145": "SA IQ TR JO LB SY AE YE OM GE AM AZ",
            "143": "KZ UZ KG TJ TM",
            "030": "CN JP KR MN",
        },
        "europe": {
            "154": "GB SE NO DK FI IE IS LV EE LT",
            "155": "DE FR NL AT CH BE",
            "039": "IT ES PT GR RS HR AL SI",
            "151": "PL CZ HU RO BG UA RU BY",
        },
    }
)
"""Region -> CLDR territory code of a sub-region -> ISO 3166 codes of its territories."""

REGION_OF: Mapping[str, str] = MappingProxyType(
    {territory: region for region, parts in SUBREGIONS.items() for members in parts.values() for territory in members.split()}
)

MAIN_ZONE: Mapping[str, str] = MappingProxyType(
    {
        "AR": "America/Buenos_Aires",
        "BR": "America/Sao_Paulo",
        "CA": "America/Toronto",
        "CD": "Africa/Kinshasa",
        "CL": "America/Santiago",
        "CN": "Asia/Shanghai",
        "DE": "Europe/Berlin",
        "EC": "America/Guayaquil",
        "ES": "Europe/Madrid",
        "GL": "America/Godthab",
        "ID": "Asia/Jakarta",
        "KZ": "Asia/Almaty",
        "IN": "Asia/Calcutta",
        "NP": "Asia/Katmandu",
        "VN": "Asia/Saigon",
        "MM": "Asia/Rangoon",
        "MN": "Asia/Ulaanbaatar",
        "MX": "America/Mexico_City",
        "MY": "Asia/Kuala_Lumpur",
        "PT": "Europe/Lisbon",
        "RU": "Europe/Moscow",
        "UA": "Europe/Kiev",
        "US": "America/New_York",
        "UZ": "Asia/Tashkent",
    }
)
"""The zone that stands for a territory with several, or that CLDR's names list under an older id."""

MAIN_LANGUAGE: Mapping[str, str] = MappingProxyType(
    {
        "BE": "nl",
        "DZ": "ar",
        "ET": "am",
        "GH": "en",
        "IE": "en",
        "KZ": "kk",
        "LB": "ar",
        "MA": "ar",
        "ML": "fr",
        "NA": "en",
        "NE": "fr",
        "PH": "fil",
        "PY": "es",
        "SD": "ar",
        "SN": "fr",
        "SY": "ar",
        "TD": "fr",
        "TN": "ar",
        "UG": "en",
        "ZM": "en",
        "ZW": "en",
    }
)
"""Where the largest share in CLDR is a dialect's or a second language's: the main or official language instead."""

HOME_LANGUAGES: Mapping[str, str] = MappingProxyType(
    {
        "africa": "wo yo ig ha zu xh st tn ln lg om am sn bem ak ee bm ki luy kam ny rn ff kab shi ti lu lua dua ewo",
        "asia": "ta te ml kn gu ur sd bo ug yue jv su ban min mad ceb ilo war shn kac ckb ku new mai kk my km",
        "europe": "ca gl eu ast cy gd kw br oc co gsw fy li nds hsb dsb fur sc scn nap tt ba ce cv udm sah wa szl",
    }
)
"""Region -> languages asked for the territory where they are at home (CLDR's likely subtags), well-known ones first."""

SCRIPT_LANGUAGES = "ru hi fa am bg ur ne ti uk mr ps he mk sd mai yi sw mn ug bho as vi kk ckb sa tr yo ky be awa"
"""Languages asked for their script, mixed so that the first ones cover every script."""

CURRENCY_UNITS: Mapping[str, str] = MappingProxyType(
    {
        "dollar": "USD CAD AUD NZD SGD JMD TTD BBD BSD BZD GYD SRD HKD FJD LRD BND",
        "franc": "XOF XAF CHF RWF CDF GNF DJF BIF",
        "shilling": "KES TZS UGX SOS",
        "dinar": "DZD TND LYD IQD KWD JOD BHD RSD",
        "pound": "GBP EGP SDG LBP SYP SSP",
        "peso": "MXN ARS CLP COP DOP CUP PHP UYU",
        "rupee": "INR PKR NPR LKR MUR SCR",
        "rial": "SAR QAR YER OMR IRR",
        "euro": "EUR",
    }
)
"""Unit of money -> currencies that bear its name; the unit's word in a language is what their CLDR names share."""

CURRENCY_TERRITORIES: Mapping[str, str] = MappingProxyType(
    {
        "africa": "KE DZ EG SN TZ TN SD ML UG LY CM SO CI RW CD NE BJ GA TD CG TG MU SC LR",
        "asia": "IN SA IQ LB PH SG PK IR JO SY NP YE KW LK OM QA BH BN",
    }
)
"""Territories whose money is one of those units, mixed so that the first ones cover every unit."""

WEEK_TERRITORIES = "FR EG US MV DE IQ JP IT DZ IN PL JO BR RU AE KR SE SY CA TR LY MX UA SD IL ID CN KE KW ZA"
"""Territories asked for the first day of their week, mixed so that Monday, Saturday and Sunday all lead the list."""
