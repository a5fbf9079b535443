#include "calendar.h"
#include <string.h>

static bool has_form(const char *text) {
    static const char form[] = "0000-00-00";
    if (strlen(text) != sizeof form - 1)
        return false;
    for (const char *c = form; *c; c++, text++)
        if (*c == '0' ? *text < '0' || *text > '9' : *text != *c)
            return false;
    return true;
}

static unsigned number(const char *digits, unsigned count) {
    unsigned value = 0;
    for (unsigned i = 0; i < count; i++)
        value = value * 10 + (unsigned)(digits[i] - '0');
    return value;
}

static unsigned days_in(unsigned year, unsigned month) {
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && leap ? 29 : days[month - 1];
}

bool calendar_has(const char *text) {
    if (!has_form(text))
        return false;
    const unsigned year = number(text, 4), month = number(text + 5, 2), day = number(text + 8, 2);
    return month >= 1 && month <= 12 && day >= 1 && day <= days_in(year, month);
}
