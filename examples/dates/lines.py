#!/usr/bin/env python3
"""Lines with a date and lines without one: what train.py trains on, and the two lists that the tests read.

usage: lines.py [--sample N]
Writes dates_test.tsv (1,000 dates and what they are in ISO 8601) beside itself and tests/data/no_dates.txt (1,000 lines
without a date). With --sample it prints N training lines instead. Needs no more than Python.

A line is a date where all of it is one, in a pattern that `dates --help` lists. What is written in such a pattern and
is no day of the calendar, as 2023-02-30 or 13/13/2013, is to be read as it stands: the program finds no such day.
"""
import calendar
import pathlib
import random
import re
import sys

MONTHS = 'January February March April May June July August September October November December'.split()
DAYS = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split()
ONES = 'first second third fourth fifth sixth seventh eighth ninth'.split()
ORDINALS = ONES + ('tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth '
                   'twentieth').split() + ['twenty-' + one for one in ONES] + ['thirtieth', 'thirty-first']

# The training has its words and names from the first two lists, the tests' lines without a date from the other two.
WORDS = '''
able about above across act add after again against ago air all also always among amount animal answer any apple apply
area arm army art ask away baby back bad bag ball bank base bath bear beat bed before begin behind believe bell best
better between big bird black blood blue board boat body bone book both bottle bottom box boy branch brave bread break
bridge bright bring brother brown build burn busy but buy cake call can car card care carry case cat catch cause cell
cent center chair chance change cheap check child choose church circle city class clean clear clock close cloth cloud
coal coast coat cold collect color come common company compare complete cook cool copper copy corn corner correct cost
cotton could count country course cover cow create cross cry cup cut dance danger dark daughter day dead deal dear death
decade decide deep degree depend desk destroy detail die difference dinner direction dirty discover dish distance divide
doctor dog door double doubt down draw dream dress drink drive drop dry during dust each ear early earth east easy eat
edge effect egg eight electric else end enemy engine enough equal error evening event ever every exact example except
excuse exercise expect explain extra eye face fact fair fall false family famous far farm fast father fear feather feel
feet few field fight figure fill final find fine finger finish fire fish five flag flat floor flower fly fold follow
food foot force foreign forest forget fork form forward four free fresh friend from front fruit full funny future game
garden gas gate general gentle get gift girl give glad glass go goat gold good govern grain grass grave gray great green
ground group grow guess guide gun hair half hall hammer hand happen happy hard harvest hat hate have he head heal hear
heart heat heavy height help her here hide high hill him hit hold hole holiday hollow home honest hope horse hospital
hot hotel hour house how hundred hungry hurry hurt husband ice idea if ill important in increase inside iron island it
jacket jewel job join judge jump just keep key kick kill kind king kitchen knee knife knock know lake lamp land language
large last late laugh law lazy lead leaf learn least leave left leg lend length less lesson let letter level lie life
lift light like line lion lip list listen little live load local lock lone long look lose lot love low luck machine main
make man manage many map mark market marry master matter me meal mean measure meat medicine meet member mention metal
method middle milk million mind mine minute mirror miss mistake mix model modern moment money monkey month moon more
morning most mother mountain mouth move much music must name narrow nation nature near neck need needle neighbor net
never new news next nice night nine noble noise none noon north nose note nothing notice now number nurse obey object
ocean of off offer office often oil old on once one only open opposite or orange order other our out outside over own
page pain paint pair pan paper parent park part party pass past path pay peace pen pencil people pepper per perfect
period person picture piece pig pin pink place plane plant plastic plate play please plenty pocket point poison police
polite pool poor popular position possible potato pour power present press pretty prevent price prince prison private
prize probably problem produce promise proper protect provide public pull punish pupil push put queen question quick
quiet quite radio rain raise reach read ready real reason receive record red remember remind remove rent repair repeat
reply report rest result return rice rich ride right ring rise river road rob rock room root rope round rub rude ruin
rule ruler run rush sad safe sail salt same sand save say school science scissors search seat second secret see seed
seem sell send sentence serve seven several sew shade shadow shake shape share sharp she sheep sheet shelf shine ship
shirt shoe shoot shop short should shoulder shout show sick side sign silence silly silver similar simple since sing
single sink sister sit six size skill skin skirt sky sleep slip slow small smell smile smoke snow so soap sock soft some
son soon sorry sound soup south space speak special speed spell spend spoon sport spread spring square stamp stand star
start station stay steal steam step still stomach stone stop store storm story strange street strong structure student
study stupid subject such sudden sugar suggest suit summer sun surprise sweet swim sword table take talk tall taste taxi
tea teach team tear ten tennis test than thank that the their then there these they thick thin thing think third this
threat three tidy tie time title to today together tomorrow tonight too tool tooth top total touch town train tram
travel tree trouble true trust try turn twice type uncle under unit until up use useful usual vegetable very village
visit voice wait wake walk want war warm wash waste watch water way we weak wear weather wedding week weight welcome
well west wet what wheel when where which white who why wide wife wild will win wind window wine winter wire wise wish
with without woman wonder wood word work world worry worst write wrong year yes yesterday yet you young your zero zoo
'''.split()
NAMES = '''
Anna Peter Maria John Laura Thomas Julia Paul Sofia David Emma Michael Sarah Daniel Eva Martin Clara Robert Helen Frank
April June May August Augusta Julie Julius Marcus Marta Octavia Wednesday Maya Juno Janet Decker Martha Friday Tuesday
Summer Sunny Smith Jones Miller Weber Garcia Rossi Novak Jensen Silva Kim Nguyen Tanaka Patel Cohen Dubois Moreau
Kowalski Ivanov Larsen Brown Berlin Paris London Tokyo Madrid Oslo Vienna Chicago Boston Denver Lagos Cairo Delhi Seoul
Sydney Lima Quito Accra Prague Dublin
'''.split()
TEST_WORDS = '''
acorn anchor artist autumn avenue badge balance banana barrel basket beach beetle belief blanket blossom border
bottleneck breeze brick bubble bucket butter cabbage cable camera candle canvas carpet castle cellar cherry circus clerk
coffee comet compass concert cousin cradle crystal curtain decent dessert diamond dinosaur dolphin dragon eagle echo
elbow emperor envelope estate falcon fashion fiction flavor fortune fossil fountain galaxy garlic ginger glacier glove
grammar guitar hammock harbor helmet honey horizon insect ivory jungle kettle kingdom ladder lantern lemon library
lizard lobster magnet maple marble market-place mayor meadow melody marching mineral monument museum mystery napkin
nectar noodle novel octopus olive onion opera orchard oxygen oyster palace parade parrot pearl pebble penguin pillow
pirate planet pocketbook puzzle pyramid quarry rabbit rainbow ribbon rocket saddle sailor sandwich satellite scarf
seashell sequence shepherd shovel signal soldier spider squirrel statue sunflower tailor temple textbook thunder ticket
tiger toast tomato tornado tractor treasure trumpet tunnel turtle umbrella valley vanilla velvet violin volcano voyage
wagon walnut whisper willow wizard yellow zebra
'''.split()
TEST_NAMES = '''
Alice Bruno Carla Dennis Elena Felix Greta Hugo Irene Jakob Karin Leon Mona Niklas Olga Pablo Rosa Simon Tina Viktor
Mayer Marchand Junior Augustus Aprilia Sundberg Decosta Fischer Wagner Becker Hansen Lopez Santos Khan Sato Popov Horvat
Murphy Walsh Hamburg Lyon Porto Turin Bergen Geneva Austin Dallas Osaka Nairobi
'''.split()

PRINTABLE = [chr(code) for code in range(0x20, 0x7f)]
CHARACTERS = PRINTABLE + list('£€年日月')
LONGEST = 64  # characters in a line that the model takes


# ---- Dates ----

def suffix(day):
    return 'th' if 10 <= day % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')


def possible(year, month, day):
    return 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def some_year(r):
    return r.randint(1900, 2099) if r.random() < .8 else r.randint(1000, r.choice([2999, 9999]))


def some_day(r, impossible):
    """Year, month and day; where `impossible`, one of the kinds that a calendar does not have."""
    year = some_year(r)
    month = r.randint(1, 12)
    length = calendar.monthrange(year, month)[1]
    if not impossible:
        return year, month, r.randint(1, length)
    kind = r.random()
    if kind < .3:  # a few days too many
        month = r.choice([2, 2, 4, 6, 9, 11])
        return year, month, r.randint(calendar.monthrange(year, month)[1] + 1, 31)
    if kind < .6:
        return year, month, r.choice([0, 32, 33, r.randint(32, 99)])
    return year, r.choice([0, 13, 13, 14, r.randint(13, 31), r.randint(13, 99)]), r.randint(1, r.choice([12, 31, 99]))


def write_year(r, year, short):
    """Four digits or, with probability `short`, two, with or without an apostrophe, where two can tell the year."""
    if not 1969 <= year <= 2068 or r.random() >= short:
        return f'{year}'
    return f"{r.choice(['', '', chr(39)])}{year % 100:02}"


def weekday(r, year, month, day):
    """Before a date; usually the one that it is, and the answer does not depend on it."""
    if possible(year, month, day) and r.random() < .7:
        name = DAYS[calendar.weekday(year, month, day)]
    else:
        name = r.choice(DAYS)
    name = r.choice([name, name[:3], name[:3], name[:3] + '.'])
    return name + r.choice([' ', ', '])


def write_month(r, month):
    name = MONTHS[month - 1]
    short = name[:3] if month != 9 or r.random() < .7 else 'Sept'
    return r.choice([name, name, short, short + '.' if r.random() < .3 and month != 5 else short])


def write_day(r, day):
    """A number, an ordinal in digits or in words."""
    kind = r.random()
    if kind < .4 and day <= 31 and day:
        word = ORDINALS[day - 1]
        return word.replace('-', ' ') if r.random() < .3 else word
    return f'{day}{suffix(day)}' if kind < .7 else f'{day:02}' if kind < .76 else f'{day}'


def day_first(r, year, month, day):
    text = write_day(r, day)
    ordinal = not text.isdigit()
    if ordinal and r.random() < .4:
        text = 'the ' + text
    if ordinal and r.random() < .5:
        text += ' of'
    elif not ordinal and r.random() < .1:
        text += '.'
    return f"{text} {write_month(r, month)}{r.choice(['', '', ','])} {write_year(r, year, .25)}"


def month_first(r, year, month, day):
    text = write_day(r, day)
    if not text.isdigit() and r.random() < .4:
        text = 'the ' + text
    return f"{write_month(r, month)} {text}{r.choice(['', ','])} {write_year(r, year, .25)}"


def joined(r, year, month, day):
    separator = r.choice(['-', '-', '', '', '/'])
    name = r.choice([MONTHS[month - 1][:3]] * 4 + [MONTHS[month - 1]])
    number = f'{day:02}' if separator == '' or r.random() < .5 else f'{day}'
    if r.random() < .15:
        return separator.join([f'{year}', name, f'{day:02}']) if separator else f'{year} {name} {day}'
    return separator.join([number, name, write_year(r, year, .3).replace("'", '')])


def iso(r, year, month, day):
    separator = r.choice('---/')
    return (f'{year}{separator}{month:02}{separator}{day:02}' if r.random() < .75 else
            f'{year}{separator}{month}{separator}{day}')


def dots(r, year, month, day):
    separator = '. ' if r.random() < .08 else '.'
    form = '{:02}' if r.random() < .5 else '{}'
    return separator.join([form.format(day), form.format(month), write_year(r, year, .35).replace("'", '')])


def slashes(r, year, month, day):
    """The first number is the month unless only the second one can be."""
    first, second = (day, month) if day > 12 and r.random() < .5 else (month, day)
    if r.random() < .25 and month > 12:
        first, second = second, first
    form = '{:02}' if r.random() < .4 else '{}'
    text = '/'.join([form.format(first), form.format(second), write_year(r, year, .35).replace("'", '')])
    return text, (second, first) if first > 12 else (first, second)


def ideographs(r, year, month, day):
    return f'{year}年{month:02}月{day:02}日' if r.random() < .25 else f'{year}年{month}月{day}日'


PATTERNS = [day_first, month_first, joined, iso, dots, slashes, ideographs]
FREQUENCIES = [30, 22, 10, 10, 10, 14, 4]


def year_first(r, year, month, day):
    name = r.choice([MONTHS[month - 1], MONTHS[month - 1][:3]])
    return r.choice([f'{year} {name} {day}', f'{year}-{name}-{day:02}', f'{year}/{name}/{day:02}'])


# What the model found hard, for it is rare above; all but the first mostly after a day of the week.
HARD = [year_first, month_first, iso, slashes, dots]


def date_line(r, impossible=False, hard=False):
    """A line and its date in ISO 8601."""
    pattern = r.choice(HARD) if hard else r.choices(PATTERNS, FREQUENCIES)[0]
    year, month, day = some_day(r, impossible)
    if pattern in (day_first, month_first, joined, year_first):
        while not 1 <= month <= 12 or (impossible and possible(year, month, day)):
            year, month, day = some_day(r, impossible)
    if pattern is slashes:
        text, (month, day) = slashes(r, year, month, day)
    else:
        text = pattern(r, year, month, day)
    weekdays = .7 if hard else .3 if pattern in (day_first, month_first) else .08
    if pattern not in (ideographs, joined, year_first) and r.random() < weekdays:
        text = weekday(r, year, month, day) + text
    text = r.choice([text, text, str(text).lower(), text.upper()])
    return text, f'{year:04}-{month:02}-{day:02}'


# ---- Lines without a date ----

_DAY = '(?:\\d{1,2}(?:st|nd|rd|th)?|' + '|'.join(word.replace('-', '[- ]') for word in reversed(ORDINALS)) + ')'
_MONTH = '(?:' + '|'.join(f'{name[:3]}(?:{name[3:]})?' for name in MONTHS) + '|sept)'
_YEAR = "(?:\\d{4}|'?\\d{2})"
_BETWEEN = '[-/., ]{0,3}'
_WEEKDAY = '(?:' + '|'.join(f'{name[:3]}(?:{name[3:]})?' for name in DAYS) + f'){_BETWEEN}'
_DATE = re.compile(f'(?:{_WEEKDAY})?(?:' + '|'.join([
    r'\d{4}[-/]\d{1,2}[-/]\d{1,2}',
    r'\d{1,2}(?:/|\. ?)\d{1,2}(?:/|\. ?)(?:\d{4}|\d{2})',
    '\\d{4}年\\d{1,2}月\\d{1,2}日',
    f'(?:the )?{_DAY}(?: of)?{_BETWEEN}{_MONTH}{_BETWEEN}{_YEAR}',
    f'{_MONTH}{_BETWEEN}(?:the )?{_DAY}{_BETWEEN}{_YEAR}',
    f'{_YEAR}{_BETWEEN}{_MONTH}{_BETWEEN}{_DAY}']) + r')\W*', re.IGNORECASE)


def is_date(line):
    """Whether a line is written as a date, or nearly so. Only the generator asks: a line without a date must be one."""
    return _DATE.fullmatch(line.strip()) is not None


class Vocabulary:
    def __init__(self, words, names):
        self.words, self.names = words, names


TRAINING = Vocabulary(WORDS, NAMES)
TESTING = Vocabulary(TEST_WORDS, TEST_NAMES)


def digits(r, least, most):
    return ''.join(r.choice('0123456789') for _ in range(r.randint(least, most)))


def any_case(r, text):
    return r.choice([text, text, text.lower(), text.upper(), text.capitalize()])


def words(r, v):
    kind = r.random()
    if kind < .15:  # a word that there is not
        return any_case(r, ''.join(r.choice('bcdfghjklmnprstvwz') + r.choice('aeiou') for _ in range(r.randint(1, 5))))
    text = ' '.join(r.choice(v.words) for _ in range(r.choice([1, 1, 1, 2, 3, 4, 6])))
    if kind < .25:
        text += r.choice(['!', '?', '.', '...', ', ' + r.choice(v.words)])
    elif kind < .4:  # words of which dates are made
        extra = r.choice(MONTHS + DAYS + ORDINALS + [name[:3] for name in MONTHS + DAYS] +
                         ['the', 'of', 'the ' + r.choice(ORDINALS)])
        text = r.choice([f'{extra} {text}', f'{text} {extra}', f'the {extra} {text}', extra, f'{extra} of {text}'])
    elif kind < .5:
        text = (r.choice(v.words) + r.choice('-_.@/') + r.choice(v.words) +
                r.choice(['', '.com', '.txt', ' ' + digits(r, 1, 4)]))
    return any_case(r, text)


def names(r, v):
    first, second = r.choice(v.names), r.choice(v.names)
    return r.choice([first, f'{first} {second}', f'{first} {second}', f'{second}, {first}',
                     f'{first} {r.choice("ABCDEFGHJKLMPRSTW")}. {second}',
                     f'Dr. {second}', f'{first} and {second}', f'Mr {second}',
                     f'{first.lower()}.{second.lower()}@mail.org',
                     f'{first} {second} {digits(r, 1, 3)}',
                     f'{second} {r.choice(["Street", "Road", "Square"])} {digits(r, 1, 4)}',
                     f'{digits(r, 1, 4)} {second} {r.choice(["St.", "Ave", "Lane"])}',
                     f'{first} the {r.choice(ORDINALS)}'])


UNITS = ['kg', 'km', 'm', 'MB', 'pages', 'days', 'years', 'degrees', 'x 4']
HOURS = 'one two three four five six seven eight nine ten eleven'.split()
WHILES = ['minutes', 'hours', 'days', 'weeks', 'months', 'years']
WHENS = ['noon', 'midnight', 'now', 'today', 'tomorrow', 'yesterday', 'tonight', 'next week', 'last year', 'soon']


def numbers(r, v):
    del v
    return r.choice([digits(r, 1, 12), digits(r, 1, 4), digits(r, 8, 8), f'{digits(r, 1, 4)}.{digits(r, 1, 6)}',
                     f'-{digits(r, 1, 5)}',
                     f'{r.randint(1, 99)}/{r.randint(1, 99)}', f'{digits(r, 1, 4)} {digits(r, 1, 4)}',
                     f'{r.randint(1, 999)},{digits(r, 3, 3)}',
                     f'{r.randint(1, 9)}e{r.randint(1, 30)}', f'0x{r.randrange(1 << 24):x}', f'{r.randint(1, 100)}%',
                     f'#{digits(r, 1, 5)}',
                     f'{r.randint(1, 999)} {r.choice(UNITS)}',
                     f'{digits(r, 1, 3)}-{digits(r, 1, 3)}', f'{r.randint(1, 400)}{r.choice(["st", "nd", "rd", "th"])}',
                     f'{digits(r, 1, 3)}+{digits(r, 1, 3)}',
                     f'{digits(r, 2, 2)} {digits(r, 2, 2)} {digits(r, 2, 2)}',
                     f'{digits(r, 1, 2)}, {digits(r, 1, 2)}, {digits(r, 1, 4)}'])


def times(r, v):
    del v
    hour, minute = r.randint(0, 23), r.randint(0, 59)
    return any_case(r, r.choice([
        f'{hour}:{minute:02}', f'{hour:02}:{minute:02}', f'{hour:02}:{minute:02}:{r.randint(0, 59):02}',
        f'{r.randint(1, 12)} {r.choice(["am", "pm"])}',
        f'{r.randint(1, 12)}:{minute:02} {r.choice(["am", "pm", "a.m.", "p.m."])}', f'{hour}.{minute:02}',
        f'{hour}h{minute:02}', f"{r.randint(1, 12)} o'clock",
        f'{r.choice(["half", "quarter"])} past {r.choice(HOURS)}',
        f'{r.randint(1, 90)} {r.choice(WHILES)}{r.choice(["", " ago", " later"])}',
        f'{r.choice(WHENS)}',
        f'{r.choice(["next", "last", "this", "every", "on"])} {r.choice(DAYS + MONTHS + ["week", "month", "year"])}',
        f'{hour:02}:{minute:02} UTC', f'{hour:02}:{minute:02}-{(hour + 1) % 24:02}:{minute:02}',
        f'{r.choice(DAYS)} {hour}:{minute:02}',
        f'{r.choice(DAYS)[:3]} {hour:02}:{minute:02}']))


def prices(r, v):
    del v
    amount = r.choice([f'{r.randint(0, 999)}.{r.randint(0, 99):02}', f'{r.randint(1, 9999)}',
                       f'{r.randint(1, 99)},{r.randint(0, 999):03}.{r.randint(0, 99):02}',
                       f'{r.randint(1, 99)}.{r.randint(0, 999):03},{r.randint(0, 99):02}',
                       f'{r.randint(0, 99)},{r.randint(0, 99):02}'])
    return r.choice([f'${amount}', f'€{amount}', f'£{amount}', f'{amount} €', f'{amount} EUR', f'USD {amount}',
                     f'{amount} dollars', f'{amount}$', f'-${amount}',
                     f'CHF {amount}', f'{amount} per day', f'{amount} each'])


def versions(r, v):
    def n():
        return r.choice([r.randint(0, 9), r.randint(0, 30), r.randint(0, 2030)])
    return r.choice([f'v{n()}.{n()}.{n()}', f'{n()}.{n()}.{n()}', f'{n()}.{n()}', f'{n()}.{n()}.{n()}.{n()}',
                     f'{n()}.{n()}.{n()}-rc{r.randint(1, 9)}',
                     f'{n()}.{n()}-{r.choice(["beta", "alpha", "dev", "1"])}', f'version {n()}.{n()}.{n()}',
                     f'{r.choice(v.words)}-{n()}.{n()}.{n()}',
                     f'{r.randint(1, 255)}.{r.randint(0, 255)}.{r.randint(0, 255)}.{r.randint(0, 255)}',
                     f'{r.choice(v.words)} {n()}.{n()}',
                     f'{r.randint(2000, 2040)}.{r.randint(1, 12)}.{r.randint(0, 30)}', f'ISO {digits(r, 4, 4)}',
                     f'{n()}.{n()}.{r.choice("abcx")}'])


def phones(r, v):
    del v
    return r.choice([f'{digits(r, 3, 3)}-{digits(r, 4, 4)}', f'{digits(r, 3, 3)}-{digits(r, 3, 3)}-{digits(r, 4, 4)}',
                     f'+{r.randint(1, 99)} {digits(r, 2, 4)} {digits(r, 5, 8)}',
                     f'({digits(r, 3, 3)}) {digits(r, 3, 3)}-{digits(r, 4, 4)}',
                     f'0{digits(r, 2, 4)}/{digits(r, 4, 8)}', f'0{digits(r, 9, 10)}', f'tel. {digits(r, 5, 8)}',
                     ' '.join(digits(r, 2, 2) for _ in range(5)),
                     f'{digits(r, 3, 4)} {digits(r, 3, 3)} {digits(r, 3, 4)}',
                     f'+{digits(r, 1, 2)}-{digits(r, 3, 3)}-{digits(r, 6, 7)}',
                     '.'.join([digits(r, 3, 3), digits(r, 3, 3), digits(r, 4, 4)]),
                     f'{digits(r, 2, 2)}-{digits(r, 2, 2)}-{digits(r, 2, 2)}',
                     f'0{digits(r, 2, 2)}/{digits(r, 3, 3)} {digits(r, 2, 2)}-{digits(r, 2, 3)}',
                     f'{digits(r, 3, 3)}/{digits(r, 3, 3)}/{digits(r, 4, 4)}'])


def partial_dates(r, v):
    """A part of a date is missing."""
    del v
    year, month, day = some_day(r, False)
    text = write_day(r, day)
    name = write_month(r, month)
    return any_case(r, r.choice([
        f'{name} {text}', f'{text} {name}', f'the {text} of {name}', f'{name} {year}', f'{name}, {year}',
        f'{text} of {year}', f'{year}-{month:02}', f'{month}/{year}', f'{month:02}/{day:02}',
        f'{day}.{month}.', f'{day:02}.{month:02}', f'{year}', f'{r.choice(DAYS)} {name}',
        f'{r.choice(DAYS)} the {text}', f'{r.choice(DAYS)}, {text} {name}', f'{name} the {text}', name,
        f'the {text}', f'the {text} {r.choice(DAYS)}', f'{r.choice(DAYS)} {year}', f'{month}.{year}',
        f'{year}年{month}月', f'{month}月{day}日', f'{year}年', f'{name} {r.randint(1, 9)}',
        f'{day}-{name}', f'{year}s', f'early {year}', f'{name}-{year}', f'the year {year}',
        f'{year}-W{r.randint(1, 52):02}', f'{year}-{year + r.randint(1, 20)}', f'{year}/{year % 100 + 1:02}',
        f'{year}-{r.randint(1, 366):03}', f'Q{r.randint(1, 4)} {year}', f'spring {year}', f'{year}-{month:02}-',
        f'-{month:02}-{day:02}', f'{day}/{month}/', f'/{month}/{year}']))


def spoilt_dates(r, v):
    """A date in which something is too much, too little or something else. Not in the tests' list: some hold a date."""
    line, _ = date_line(r, r.random() < .1)
    kind = r.random()
    if kind < .2:  # a number of the wrong length
        at = [m.span() for m in re.finditer(r'\d+', line)]
        if at:
            begin, end = r.choice(at)
            number = line[begin:end]
            number = r.choice([number + digits(r, 1, 2), digits(r, 1, 1) + number, number[:-1], number[1:]])
            return line[:begin] + number + line[end:]
        return line[:-1]
    if kind < .35:  # a month that is none
        match = re.search(_MONTH + r'\w*', line, re.IGNORECASE)
        if match and not line[:match.start()].rstrip(' .,').isalpha():
            return line[:match.start()] + any_case(r, r.choice(v.words + v.names)) + line[match.end():]
    if kind < .5:  # more than a date
        more = r.choice([r.choice(v.words), r.choice(v.names), f'{r.randint(0, 23)}:{r.randint(0, 59):02}',
                         digits(r, 1, 4), 'T12:30', '- ' + date_line(r)[0]])
        return r.choice([f'{line} {more}', f'{more} {line}', f'{line}, {more}'])
    if kind < .65:  # other separators
        match = re.search(r'[-./,年月]', line)
        if match:
            return line[:match.start()] + r.choice(list('-_+:;*#\\|=.') + ['', ' x ', '--', '..']) + line[match.end():]
    if kind < .8:  # cut off
        cut = r.randint(1, max(1, len(line) - 1))
        return r.choice([line[:cut], line[cut:]]).strip()
    if kind < .9:  # three numbers that are no pattern
        separator = r.choice(['-', '-', ':', ' ', '.', '_', ', ', '/'])
        year, month, day = some_day(r, False)
        return separator.join(r.choice([[f'{day:02}', f'{month:02}', f'{year}'],
                                        [f'{year % 100:02}', f'{month:02}', f'{day:02}'],
                                        [f'{day}', f'{month}', f'{year % 10}'],
                                        [f'{year}', f'{day:02}', f'{month:02}'],
                                        [f'{day}', f'{month}', f'{year % 1000:03}'],
                                        [f'{r.randint(100, 999)}', f'{month}', f'{year}']]))
    at = r.randrange(len(line))
    return line[:at] + r.choice(PRINTABLE) + line[at + r.randint(0, 1):]


KINDS = [words, names, numbers, times, prices, versions, phones, partial_dates]


def no_date_line(r, v, kinds):
    while True:
        line = r.choice(kinds)(r, v).strip()
        if 0 < len(line) <= LONGEST and not is_date(line):
            return line


def training_line(r, held_out, spoilt=.12, hard=0):
    """A line and its answer, which is empty where the line is to be refused. `spoilt` is the share of spoilt dates in
    all lines, `hard` that of hard ones in the dates."""
    while True:
        kind = r.random()
        if kind < .72 - spoilt:
            line, answer = date_line(r, hard=hard > 0 and r.random() < hard)
        elif kind < .8 - spoilt:
            line, answer = date_line(r, impossible=True)
        elif kind < .8:
            line, answer = no_date_line(r, TRAINING, [spoilt_dates]), ''
        else:
            line, answer = no_date_line(r, TRAINING, KINDS), ''
        if line.casefold() not in held_out and len(line) <= LONGEST:
            return line, answer


# ---- The tests' lists ----

def test_dates():
    """1,000 lines and their dates."""
    r, lines = random.Random(17), {}
    while len(lines) < 1000:
        line, answer = date_line(r)
        lines.setdefault(line, answer)
    return list(lines.items())


def test_no_dates():
    """1,000 lines without a date, an eighth of them days that the calendar does not have."""
    r, lines = random.Random(18), {}
    while len(lines) < 125:
        line, answer = date_line(r, impossible=True)
        if not possible(*map(int, answer.split('-'))):
            lines[line] = None
    while len(lines) < 1000:
        lines[no_date_line(r, TESTING, KINDS)] = None
    lines = list(lines)
    r.shuffle(lines)
    return lines


def held_out():
    """What no line of the training may be, in whatever case."""
    return {line.casefold() for line, _ in test_dates()} | {line.casefold() for line in test_no_dates()}


def main():
    if sys.argv[1:2] == ['--sample']:
        r, held = random.Random(), held_out()
        for _ in range(int(sys.argv[2])):
            print('%s\t%s' % training_line(r, held))
        return
    here = pathlib.Path(__file__).resolve().parent
    (here / 'dates_test.tsv').write_text(''.join(f'{line}\t{answer}\n' for line, answer in test_dates()),
                                         encoding='utf-8')
    (here.parents[1] / 'tests/data/no_dates.txt').write_text(''.join(line + '\n' for line in test_no_dates()),
                                                             encoding='utf-8')


if __name__ == '__main__':
    main()
